"""How Switchboard's cost of a turn changes with one thing at a time, each series against its first point.

Contexts that are there before a run are written by the real store, one of them, and copied in Redis.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from redis.asyncio import Redis

from interfaces import Context, Message
from tests.bench.contest import ENTRANTS, OURS, SHARDS, Report, interleaved, settings, sized
from tests.bench.measure import Contender, Run, run
from tests.bench.place import Place
from tests.bench.results import Outcome, Step
from tests.bench.work import Work
from worker.records import write_main, write_turn
from worker.stores import Edit, Retention
from worker.stores.redis import RedisStore

TURNS_AN_EDIT: Final = 2_000
COPIES_A_CALL: Final = 10_000
SAMPLED: Final = 20
"""Contexts whose memory is asked for."""
COPY: Final = "for i = ARGV[2], ARGV[3] do redis.call('COPY', KEYS[1], ARGV[1] .. string.format('%d', i) .. '}') end"
STEADY: Final = Work(10_000, 1_000)
LARGEST_TEXT: Final = 1024 * 1024 - 1024
"""A request has at most 1 MiB, its envelope included."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One point before it is measured."""

    series: str
    value: int
    work: Work = STEADY
    settings: Mapping[str, str] = field(default_factory=dict)
    shards: int = SHARDS
    preloaded: int = 0
    """Contexts in Redis before the run."""
    turns: int = 1
    """Turns in each of these."""

    @property
    def turns_at_the_end(self) -> int:
        """Turns of a context that took part."""
        return self.turns + self.work.requests // self.work.contexts


def _dialog(turns: int) -> Setup:
    return Setup("dialog", turns, Work(4_000, 100), preloaded=100, turns=turns)


def _contexts(count: int) -> Setup:
    return Setup("contexts", count, preloaded=count)


def _payload(size: int, requests: int) -> Setup:
    work = Work(requests, requests // 2, payload=size)
    return Setup("payload", size, work, {"SWITCHBOARD_MAX_TEXT": str(1024 * 1024)})


def _shards(count: int) -> Setup:
    return Setup("shards", count, shards=count)


def _setting(series: str, value: int) -> Setup:
    return Setup(series, value, settings={f"SWITCHBOARD_{series.upper()}": str(value)})


PAYLOADS: Final = ((100, 10_000), (1024, 10_000), (10 * 1024, 5_000), (100 * 1024, 1_000), (LARGEST_TEXT, 200))
SETUPS: Final = (
    *(_dialog(turns) for turns in (10, 100, 1_000, 10_000, 100_000)),
    *(_contexts(count) for count in (1_000, 10_000, 100_000, 1_000_000)),
    *(_payload(size, requests) for size, requests in PAYLOADS),
    *(_setting("batch_size", value) for value in (1, 16, 64, 256)),
    *(_shards(count) for count in (1, 4, 8, 32)),
    *(_setting("prefetch", value) for value in (16, 64, 256, 1_024, 8_192)),
)
SERIES: Final = tuple(dict.fromkeys(setup.series for setup in SETUPS))


def records_of_a_turn() -> tuple[bytes, bytes]:
    """The main record and one turn, as the benchmark's bot leaves them."""
    context = Context(id="user-0", current_turn_id=1, requests={1: Message("0")}, responses={1: Message("0 1")})
    return write_main(context), write_turn(context, 1)


def edits(turns: int) -> Iterable[Edit]:
    """Edits that make a dialog of so many turns."""
    main, turn = records_of_a_turn()
    for revision, before in enumerate(range(0, turns, TURNS_AN_EDIT)):
        after = min(before + TURNS_AN_EDIT, turns)
        written = dict.fromkeys(range(before + 1, after + 1), turn)
        yield Edit("user-0", f"preloaded-{after}", before, revision, after, main, written)


async def preload(place: Place, contexts: int, turns: int) -> None:
    """Have the first so many contexts of the work in Redis, all alike."""
    store = RedisStore(place.redis.url, place.topology.namespace, Retention())
    await store.open()
    try:
        for edit in edits(turns):
            await store.edit(edit)
    finally:
        await store.close()
    first = store.key("user-0")
    prefix = first.removesuffix(b"0}")
    async with Redis.from_url(place.redis.url, socket_timeout=120) as redis:
        for number in range(1, contexts, COPIES_A_CALL):
            last = min(number + COPIES_A_CALL, contexts) - 1
            await redis.eval(COPY, 1, first, prefix, str(number), str(last))


async def memory_of(place: Place, contexts: int) -> float:
    """Bytes of Redis for one context, by some of those that took part."""
    store = RedisStore(place.redis.url, place.topology.namespace, Retention())
    count = min(SAMPLED, contexts)
    async with Redis.from_url(place.redis.url) as redis:
        sizes = [await redis.memory_usage(store.key(f"user-{number}"), samples=0) for number in range(count)]
    await store.close()
    return float(sum(size or 0 for size in sizes)) / count


async def rewrite_never(place: Place) -> None:
    """Keep Redis from rewriting its append-only file in the middle of a run because of what was preloaded."""
    async with Redis.from_url(place.redis.url) as redis:
        await redis.config_set("auto-aof-rewrite-percentage", 0)


async def one_run(place: Place, setup: Setup) -> tuple[Run, float]:
    """What was measured, and the memory of a context afterwards."""
    entrant = next(entrant for entrant in ENTRANTS if entrant.name == OURS)
    await place.prepare(setup.shards)
    try:
        if setup.preloaded:
            await preload(place, setup.preloaded, setup.turns)
        await place.fill(setup.work)
        environ = {**settings(place), **setup.settings}
        found = await run(place, Contender(entrant.name, entrant.command, entrant.python, environ), setup.work)
        return found, await memory_of(place, setup.work.contexts)
    finally:
        await place.clear()


async def grow(
    place: Place, series: Sequence[str], rounds: int, report: Report, resized: Callable[[Setup], Setup]
) -> list[Step]:
    """All points of these series, `resized` where there should be less work; a round has every point once."""
    await rewrite_never(place)
    steps: list[Step] = []
    for name in series:
        setups = {f"{name} {setup.value:,}": resized(setup) for setup in SETUPS if setup.series == name}
        steps += await _one_series(place, setups, rounds, report)
    return steps


async def _one_series(place: Place, setups: Mapping[str, Setup], rounds: int, report: Report) -> list[Step]:
    memory: dict[str, float] = {}

    async def once(key: str) -> Run:
        found, memory[key] = await one_run(place, setups[key])
        report.tell(f"{key}: {found.rate:,.0f}/s, {found.cpu:.0f} us, servers {found.servers_cpu:.0f} us")
        return found

    tallies, failures = await interleaved(setups, rounds, once, report)
    steps = []
    for key, setup in setups.items():
        failure = failures.get(key, "").partition("\n")[0]
        outcome = Outcome(OURS, setup.work, tallies[key].kept, tallies[key].thrown_out, failure=failure)
        has_memory = setup.series == "dialog"
        turns, size = (setup.turns_at_the_end, memory.get(key, 0.0)) if has_memory else (0, 0.0)
        steps.append(Step(setup.series, setup.value, outcome, turns, size))
    return steps


def with_requests(requests: int | None) -> Callable[[Setup], Setup]:
    """How a setup is resized to so many requests at most."""
    return partial(_resized, requests=requests)


def _resized(setup: Setup, requests: int | None) -> Setup:
    return setup if requests is None else replace(setup, work=sized(setup.work, requests))
