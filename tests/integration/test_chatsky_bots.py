"""Twelve Chatsky bots over the broker, by two workers that are killed under them, answer as they do in one process.

What they answer there is told by Chatsky itself, with its own storage, in a process that runs none of this project's
code (`tests.bots.chatsky.truth`). Compared is the JSON of Chatsky's own types, to the last key: each reply, the misc
beside it, and the whole context that Redis has at the end. That turns were running when workers were killed is read
from Redis' own record of calls.
"""

import asyncio
import json
import random
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from interfaces.client import BrokerClient
from interfaces.messages import Message
from interfaces.nested_loops import nested_loops_prevented
from interfaces.reply_bodies import Reply
from interfaces.topology import Topology
from tests.bots.chatsky import NAMES
from tests.bots.chatsky.snapshot import snapshot
from tests.conformance.broker_probes import delete_everything
from tests.conformance.store_probes import delete_namespace
from tests.integration.conftest import SHARDS, Report, StartWorker
from tests.integration.redis_probes import proxied
from tests.services.processes import ROOT, WorkerProcess
from tests.services.proxy import TcpProxy
from tests.services.turn_watch import TurnWatch
from worker.members import read_members
from worker.stores import Retention
from worker.stores.redis import RedisStore

with nested_loops_prevented():
    import chatsky

    from interfaces.bridge import to_chatsky
    from worker.chatsky.storage import TurnStorage

AT_ONCE = "all at once"
COPIES = ("one", "two", AT_ONCE, f"also {AT_ONCE}")
"""Of each dialog: two that wait for each reply, two that say all of a round at once."""

WORKERS = 2
ROUNDS = 2
"""Parts a dialog is held in, in each of which a worker is killed."""

KILL_BEFORE = 0.6
"""Share of a round's turns within which the kill falls: later, there may be none left."""

DELAY = 0.01
"""Seconds each way between a worker and Redis: most of a turn's time is between its start and its commit."""

SECONDS = 60

Told = dict[str, Any]


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, Told]]:
    """What Chatsky alone answers, by bot and dialog."""
    command = [sys.executable, "-m", "tests.bots.chatsky.truth"]
    told: dict[str, dict[str, Told]] = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    )
    return told


def plain(value: Any) -> str:
    """JSON that tells 1 from 1.0 and from true, which Python's `==` does not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def part(turns: list[Told], number: int) -> list[Told]:
    """The turns of one round."""
    return turns[number * len(turns) // ROUNDS : (number + 1) * len(turns) // ROUNDS]


def fault(turn: Told, reply: Reply) -> str | None:
    """How a reply differs from the truth; `None` where it does not."""
    message = None if reply.message is None else to_chatsky(reply.message).model_dump(mode="json")
    found = {"status": reply.status, "turn": reply.turn, "reply": message, "misc": reply.misc or {}}
    expected = {"status": "ok", **{name: turn[name] for name in ("turn", "reply", "misc")}}
    return None if plain(found) == plain(expected) else f"{plain(found)}\n  instead of\n{plain(expected)}"


async def hold(client: BrokerClient, ctx_id: str, turns: list[Told]) -> list[str]:
    """Hold a part of a dialog; what was wrong in it."""

    async def say(turn: Told) -> str | None:
        message, misc = Message.model_validate(turn["message"]), turn["update_ctx_misc"]
        return fault(turn, await client.ask(message, ctx_id, update_ctx_misc=misc, timeout=SECONDS))

    if ctx_id.endswith(AT_ONCE):
        faults = await asyncio.gather(*(say(turn) for turn in turns))
    else:
        faults = [await say(turn) for turn in turns]
    return [f"{ctx_id}: {fault}" for fault in faults if fault]


@dataclass(frozen=True, slots=True)
class Victim:
    """A worker, and its only way to Redis."""

    process: WorkerProcess
    link: TcpProxy


class Killer:
    """Keeps two workers, and kills one of them when it is told to, by SIGKILL in the middle of a turn."""

    def __init__(self, store: RedisStore, start: Callable[[], Awaitable[Victim]]) -> None:
        self._store = store
        self._start = start
        self._workers: list[Victim] = []

    async def begin(self) -> None:
        """Wait until there are two workers, and both own shards and wait for those of the other."""
        self._workers += [await self._start() for _ in range(WORKERS - len(self._workers))]
        await asyncio.gather(*(worker.process.ready() for worker in self._workers))
        async with asyncio.timeout(SECONDS):
            while not await self._is_shared():  # noqa: ASYNC110 - what workers say of themselves is to be asked for
                await asyncio.sleep(0.05)

    async def _is_shared(self) -> bool:
        members = {member.pid: member for member in read_members(await self._store.living()).values()}
        mine = [members[worker.process.pid] for worker in self._workers if worker.process.pid in members]
        owned = {queue for member in mine for queue in member.consuming}
        return len(owned) == SHARDS and all(m.consuming and len(m.subscribed) == SHARDS for m in mine)

    async def kill(self, watch: TurnWatch, turns: int) -> None:
        """Let so many turns begin, then kill whoever has begun one and not committed it."""
        async with asyncio.timeout(SECONDS):
            for _ in range(turns):
                await watch.next_start()
            # Nothing reaches Redis while the links stand still: what is not committed then never will be.
            while (victim := await self._in_a_turn(watch)) is None:
                await watch.next_start()
        self._workers.remove(victim)
        await victim.process.kill()
        await victim.link.close()
        for worker in self._workers:
            worker.link.resume()
        self._workers.append(await self._start())

    async def _in_a_turn(self, watch: TurnWatch) -> Victim | None:
        for worker in self._workers:
            worker.link.pause()
        running = await watch.running()
        victim = next((worker for worker in self._workers if worker.link.ports & running), None)
        if victim is None:
            for worker in self._workers:
                worker.link.resume()
        return victim


async def stored(store: RedisStore, ctx_id: str) -> Told:
    """The whole context in Redis, as Chatsky sees it."""
    context: Told = json.loads(
        json.dumps(await snapshot(await chatsky.Context.connected(TurnStorage(store), id=ctx_id)))
    )
    return context


@dataclass(frozen=True, slots=True)
class Bench:
    """What one bot's dialogs are held with, in a namespace of its own."""

    client: BrokerClient
    store: RedisStore
    killer: Killer
    watch: Callable[[], TurnWatch]
    random: random.Random


@asynccontextmanager
async def bench(name: str, namespace: str, amqp_url: str, redis_url: str, start: StartWorker) -> AsyncIterator[Bench]:
    """A bench for a bot; no worker and nothing in the servers is left of it."""
    topology, store = Topology(namespace, SHARDS), RedisStore(redis_url, namespace, Retention())
    workers, links = list[WorkerProcess](), AsyncExitStack()

    async def start_worker() -> Victim:
        link, via = await links.enter_async_context(proxied(redis_url))
        link.delay = DELAY
        workers.append(await start(f"tests.bots.chatsky.{name}:pipeline", namespace=namespace, redis_url=via))
        return Victim(workers[-1], link)

    try:
        async with BrokerClient(amqp_url, namespace=namespace) as client:
            await client._broker.apply(topology)
            await store.open()
            killer = Killer(store, start_worker)
            yield Bench(client, store, killer, lambda: TurnWatch(redis_url, namespace), random.Random(name))
    finally:
        await asyncio.gather(*(worker.kill() for worker in workers))
        await links.aclose()
        await store.close()
        await delete_everything(amqp_url, topology)
        await delete_namespace(redis_url, namespace)


async def run(on: Bench, dialogs: dict[str, Told]) -> tuple[list[str], list[int]]:
    """Hold all dialogs with a bot; what was wrong, and how many turns each kill has interrupted."""
    faults: list[str] = []
    interrupted: list[int] = []
    for number in range(ROUNDS):
        parts = {ctx_id: part(told["turns"], number) for ctx_id, told in dialogs.items()}
        turns = sum(map(len, parts.values()))
        await on.killer.begin()
        async with on.watch() as watch, asyncio.TaskGroup() as tasks:
            tasks.create_task(on.killer.kill(watch, on.random.randrange(int(KILL_BEFORE * turns))))
            holding = [tasks.create_task(hold(on.client, ctx_id, said)) for ctx_id, said in parts.items()]
        faults += chain.from_iterable(task.result() for task in holding)
        interrupted.append(len(watch.interrupted))
    for ctx_id, told in dialogs.items():
        found, expected = plain(await stored(on.store, ctx_id)), plain(told["context"])
        faults += [] if found == expected else [f"{ctx_id} is stored as\n{found}\n  instead of\n{expected}"]
    return faults, interrupted


# Most of the time is waiting, for shards to be shared and for dead workers to be missed: several bots wait together.
@pytest.mark.parametrize(
    "names",
    [NAMES[:4], pytest.param(NAMES[4:8], marks=pytest.mark.long), pytest.param(NAMES[8:], marks=pytest.mark.long)],
    ids=", ".join,
)
async def test_bots_answer_and_remember_what_they_do_in_one_process(
    names: Sequence[str],
    truth: dict[str, dict[str, Told]],
    amqp_url: str,
    redis_url: str,
    start_worker: StartWorker,
    report: Report,
) -> None:
    async def hold_all(name: str) -> tuple[list[str], list[int]]:
        dialogs = {f"{ctx_id} {copy}": told for ctx_id, told in truth[name].items() for copy in COPIES}
        async with bench(name, f"test-{uuid.uuid4().hex[:20]}", amqp_url, redis_url, start_worker) as on:
            faults, interrupted = await run(on, dialogs)
        turns = sum(len(told["turns"]) for told in dialogs.values())
        report(f"{name}: {len(dialogs)} dialogs, {turns} turns; the killed workers were in {interrupted} turns")
        return [f"{name}, {fault}" for fault in faults], interrupted

    results = await asyncio.gather(*(hold_all(name) for name in names))
    assert [fault for faults, _ in results for fault in faults] == []
    assert all(min(interrupted) > 0 for _, interrupted in results)
