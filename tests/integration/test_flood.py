"""One context sends thousands of requests at once, and the others hardly notice, those of its own shard included.

How little is counted in turns in every run, and in time, which takes a machine with nothing else to do, by
`make test-long`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles

import pytest

from interfaces.client import BrokerClient
from interfaces.topology import Topology, slot
from tests.integration.conftest import SHARDS, Report, StartWorker
from tests.services.processes import ROOT
from worker.stores.redis import RedisStore

FLOOD = 5_000
OTHERS = 500
PER_SECOND = 250
"""Requests of the others while the flood is sent."""
FLOODER = "flooder"
PATIENCE = 120


@dataclass(frozen=True)
class Latencies:
    """Seconds from sending to the reply, of the others."""

    all: list[float]
    neighbours: list[float]
    """Of those whose requests go through the flooder's shard."""

    @property
    def p99(self) -> float:
        return quantiles(self.all, n=100)[98]

    def __str__(self) -> str:
        ms = [seconds * 1000 for seconds in (self.p99, max(self.all), max(self.neighbours))]
        return f"p99 {ms[0]:.0f} ms, slowest {ms[1]:.0f} ms, slowest in the flooder's shard {ms[2]:.0f} ms"


@dataclass(frozen=True)
class Found:
    """500 contexts sent one request each at the same time: without a flood, behind one, and without one again."""

    before: Latencies
    behind: Latencies
    after: Latencies
    waiting: int
    """Requests of the flood that had no turn yet when the others sent theirs."""
    left: int
    """Those of them that had none when the others were answered."""


@pytest.fixture
async def found(
    start_worker: StartWorker, topology: Topology, amqp_url: str, store: RedisStore, report: Report
) -> Found:
    worker = await (await start_worker("tests.bots.brief:answer")).ready()
    async with BrokerClient(amqp_url, namespace=topology.namespace) as client:
        await ask_all(client, topology, "warm")  # Scripts, epochs and connections are there from now on.
        before = await ask_all(client, topology, "before")
        async with flooding(amqp_url, topology.namespace) as sent:
            while_sent = await ask_all(client, topology, "while it is sent", PER_SECOND)
            await sent()
            waiting = FLOOD - await turns(store)
            behind = await ask_all(client, topology, "behind it")
            left = FLOOD - await turns(store)
        await until_turns(store, FLOOD)
        after = await ask_all(client, topology, "after")
    assert await worker.stop() == 0
    assert "closed, consuming again" not in worker.log
    report(f"without a flood: {before}, and afterwards {after}")
    report(f"{OTHERS / PER_SECOND:g} s long while {FLOOD} requests of one context are sent: {while_sent}")
    report(f"behind {waiting} of them, {left} of which are left: {behind}")
    return Found(before, behind, after, waiting, left)


@pytest.mark.timeout(300)
async def test_a_flood_of_one_context_gets_few_turns_while_the_others_are_answered(found: Found) -> None:
    assert found.waiting > FLOOD / 4 + OTHERS / 2, "the flood was nearly over when the others began: it proves nothing"
    assert found.waiting - found.left < OTHERS / 2


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_others_wait_at_most_twice_as_long_behind_thousands_of_requests_of_one_context(found: Found) -> None:
    assert found.left > FLOOD / 4
    assert found.behind.p99 <= 2 * max(found.before.p99, found.after.p99)


async def ask_all(client: BrokerClient, topology: Topology, text: str, per_second: float = float("inf")) -> Latencies:
    """The others, each once, at even intervals whatever the answers do."""
    begun = asyncio.get_running_loop().time()
    names = [f"other {number}" for number in range(OTHERS)]

    async def ask(number: int, name: str) -> float:
        await asyncio.sleep(max(0, begun + number / per_second - asyncio.get_running_loop().time()))
        sent = time.monotonic()
        reply = await client.ask(text, name, timeout=PATIENCE)
        assert reply.message is not None
        assert str(reply.message.text).endswith(text)
        return time.monotonic() - sent

    seconds = await asyncio.gather(*(ask(number, name) for number, name in enumerate(names)))
    shard = topology.queue_of(slot(FLOODER))
    neighbours = [s for s, name in zip(seconds, names, strict=True) if topology.queue_of(slot(name)) == shard]
    assert len(neighbours) > OTHERS / SHARDS / 2
    return Latencies(seconds, neighbours)


@asynccontextmanager
async def flooding(amqp_url: str, namespace: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The flood, from when it has begun; what it gives waits until the broker has all of it."""
    arguments = ["-m", "tests.services.flooding", amqp_url, namespace, FLOODER, str(FLOOD)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)

    async def says(word: bytes) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == word

    try:
        await says(b"sending\n")
        yield lambda: says(b"sent\n")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def turns(store: RedisStore) -> int:
    stored = await store.peek(FLOODER, history=1)
    return 0 if stored is None else stored.version


async def until_turns(store: RedisStore, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await turns(store) < count:  # noqa: ASYNC110 - a store tells its state only when asked
            await asyncio.sleep(0.05)
