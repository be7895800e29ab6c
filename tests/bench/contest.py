"""Who takes part, and the rounds: contenders take turns, and a run that somebody else disturbed is made again."""

import importlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import aiormq

from tests.bench.measure import ROOT, Contender, Run, run
from tests.bench.place import Place
from tests.bench.results import Outcome, Tally, WatchedRun
from tests.bench.work import Work
from tests.services.local import LocalBroker, LocalRedis

SHARDS: Final = 4
OTHER_PYTHON: Final = str(ROOT / ".venv-bench/bin/python")
"""Has the frameworks of requirements/bench.in, which the project itself does not need."""
VARIANTS: Final = {
    "steady": Work(10_000, 1_000),
    "bursts": Work(10_000, 2_000, in_a_row=5),
    "waiting": Work(100_000, 10_000, wait=0.05),
}
WAITING_SECONDS: Final = 15
"""No contender waits longer in one run: whoever runs few handlers at a time gets fewer requests."""

OURS: Final = "Switchboard"
BARE: Final = "bare aio-pika, no state"

Key = TypeVar("Key")
Fill = Callable[[Place, Work], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender before it is known where it works."""

    name: str
    command: tuple[str, ...]
    concurrency: int
    """Handlers that run at a time at most: what its prefetch, tasks or threads allow."""
    python: str = sys.executable
    is_switchboard: bool = False
    fill: str = ""
    """`module:function` that makes its requests, where it cannot read those of the wire contract."""
    at_most: int = 1_000_000
    """Requests of a run; fewer for slow ones."""
    has_handler: bool = True
    """Whether there is anything that could wait."""


def _ours(name: str, bot: str, at_most: int = 1_000_000) -> Entrant:
    return Entrant(name, ("-m", "worker.cli", "run", bot), 256, is_switchboard=True, at_most=at_most)


_HERE: Final = "tests.bench.contenders"
_CELERY: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
_TASKIQ: Final = ("--ack-type", "when_executed", "--no-parse", "--log-level", "WARNING")

ENTRANTS: Final = (
    _ours(OURS, "tests.bots.benchmark:answer"),
    _ours("Switchboard, Chatsky pipeline", "tests.bots.benchmark_chatsky:pipeline", at_most=2_000),
    Entrant(BARE, ("-m", f"{_HERE}.bare"), SHARDS * 1000, has_handler=False),
    Entrant("aio-pika and Redis by hand", ("-m", f"{_HERE}.by_hand"), SHARDS * 256),
    Entrant("FastStream", ("-m", f"{_HERE}.faststream_"), SHARDS * 256, OTHER_PYTHON),
    Entrant(
        "taskiq",
        ("-m", "taskiq", "worker", f"{_HERE}.taskiq_:broker", "--workers", "1", "--max-async-tasks", "100", *_TASKIQ),
        100,
        OTHER_PYTHON,
        fill=f"{_HERE}.fills:taskiq",
    ),
    Entrant(
        "Dramatiq",
        ("-m", "dramatiq", f"{_HERE}.dramatiq_", "--processes", "1", "--threads", "8"),
        8,
        OTHER_PYTHON,
        fill=f"{_HERE}.fills:dramatiq",
    ),
    Entrant(
        "Celery",
        ("-m", "celery", "-A", f"{_HERE}.celery_", "worker", "--pool", "threads", "--concurrency", "8", *_CELERY),
        8,
        OTHER_PYTHON,
        fill=f"{_HERE}.fills:celery",
    ),
    Entrant("Chatsky's own loop", ("-m", f"{_HERE}.chatsky_loop"), 1, OTHER_PYTHON, at_most=1_000),
)


@dataclass(frozen=True, slots=True)
class Report:
    """Where it is told how far the rounds are."""

    tell: Callable[[str], None]
    counted: Callable[[], None] = lambda: None
    """Called for every run that counts."""
    until: float = float("inf")
    """Moment (of `time.monotonic`) at which no further run begins."""


def contenders(names: Sequence[str], tell: Callable[[str], None]) -> list[Entrant]:
    """Those of these names, or all; without those whose interpreter is missing. Raises `ValueError` for a name."""
    known = {entrant.name: entrant for entrant in ENTRANTS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no contender {', '.join(unknown)}; there are: {', '.join(known)}")
    asked = [known[name] for name in names] or list(ENTRANTS)
    missing = [entrant for entrant in asked if not (ROOT / entrant.python).exists()]
    if missing:
        tell(
            f"Left out, because {OTHER_PYTHON} is missing: {', '.join(entrant.name for entrant in missing)}. "
            "Make it: make .venv-bench"
        )
    return [entrant for entrant in asked if entrant not in missing]


def settings(place: Place) -> dict[str, str]:
    """A Switchboard worker's environment."""
    return {
        "SWITCHBOARD_AMQP_URL": place.broker.url,
        "SWITCHBOARD_REDIS_URL": place.redis.url,
        "SWITCHBOARD_NAMESPACE": place.topology.namespace,
        "SWITCHBOARD_SHARDS": str(place.topology.shards),
    }


def sized(work: Work, requests: int) -> Work:
    """The same kind of work with no more than so many requests, and as many of them for each context."""
    requests = min(work.requests, requests)
    contexts = max(1, work.contexts * requests // work.requests)
    return replace(work, requests=requests - requests % contexts, contexts=contexts)


def work_for(entrant: Entrant, variant: Work) -> Work:
    """As much of it as the contender does in a bearable time."""
    requests = entrant.at_most
    if variant.wait:
        requests = min(requests, round(entrant.concurrency / variant.wait * WAITING_SECONDS))
    return sized(variant, requests)


def filler(entrant: Entrant) -> Fill:
    """What fills the queues for it. Raises `RuntimeError` where that cannot be imported."""
    if not entrant.fill:
        return Place.fill
    module, _, function = entrant.fill.partition(":")
    try:
        fill: Fill = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(f"{entrant.name}: its requests cannot be made: {error}") from error
    return fill


@asynccontextmanager
async def own_place() -> AsyncIterator[Place]:
    """Servers of the benchmark's own, removed at the end."""
    broker, redis = LocalBroker(), LocalRedis()
    try:
        await broker.start()
        await redis.start()
        place = Place(broker, redis)
        await place.open()
        yield place
        await place.close()
    finally:
        for server in (broker, redis):
            server.remove_now()


async def interleaved(
    keys: Iterable[Key], rounds: int, once: Callable[[Key], Awaitable[WatchedRun]], report: Report
) -> tuple[dict[Key, Tally[WatchedRun]], dict[Key, str]]:
    """Run one after another, again and again, until each has its rounds; what was found, and who failed why."""
    tallies: dict[Key, Tally[WatchedRun]] = {key: Tally(rounds) for key in keys}
    failures: dict[Key, str] = {}
    while waiting := [key for key, tally in tallies.items() if key not in failures and not tally.is_complete]:
        for key in waiting:
            if time.monotonic() > report.until:
                report.tell(f"the time is over before {key}")
                return tallies, failures
            try:
                found = await once(key)
            except RuntimeError as error:
                failures[key] = str(error)
                report.tell(f"{key} failed: {error}")
                continue
            if tallies[key].add(found):
                report.counted()
            else:
                report.tell(f"{key}: thrown out, others used {found.others:.0%} of the processors")
    return tallies, failures


async def hold(place: Place, entrants: Sequence[Entrant], variant: Work, rounds: int, report: Report) -> list[Outcome]:
    """All rounds of one kind of work."""
    taking_part = {entrant.name: entrant for entrant in entrants if entrant.has_handler or not variant.wait}

    async def once(name: str) -> Run:
        found = await run_once(place, taking_part[name], work_for(taking_part[name], variant))
        costs = f"{found.cpu:.0f} us, servers {found.servers_cpu:.0f} us"
        report.tell(f"{name}: {found.rate:,.0f}/s, {costs}; fixed work {found.pace:.0f} us")
        return found

    tallies, failures = await interleaved(taking_part, rounds, once, report)
    return [
        Outcome(
            name,
            work_for(entrant, variant),
            tallies[name].kept,
            tallies[name].thrown_out,
            entrant.concurrency,
            failures.get(name, "").partition("\n")[0],
        )
        for name, entrant in taking_part.items()
    ]


async def run_once(place: Place, entrant: Entrant, work: Work) -> Run:
    """One run on fresh queues, which are gone afterwards."""
    await place.prepare(SHARDS)
    try:
        await filler(entrant)(place, work)
        environ = settings(place) if entrant.is_switchboard else {}
        return await run(
            place, Contender(entrant.name, entrant.command, entrant.python, environ, not entrant.fill), work
        )
    finally:
        await place.clear()
        if entrant.fill:
            await _clear_own(place)


async def _clear_own(place: Place) -> None:
    """Delete what a contender has beside the queues of the topology."""
    async with aiormq.Connection(place.broker.url) as connection:
        channel = await connection.channel()
        for suffix in ("", ".DQ", ".XQ"):
            await channel.queue_delete(f"{place.topology.namespace}.tasks{suffix}")
