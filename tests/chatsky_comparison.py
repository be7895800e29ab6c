"""Compares a Chatsky pipeline run by workers with the same on Chatsky's own Redis storage; writes docs/chatsky.md.

Two things are measured: what is left of 50 messages sent to one context at once, and what a turn costs the longer its
dialog is. Both sides take turns, message by message where time is measured, so that what else the machine does meets
both; each has a Redis of its own. `make chatsky-comparison` runs it.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from matplotlib import pyplot
from redis.asyncio import Redis

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.chatsky_page import Length, Loss, page, plot
from tests.services.chatsky_alone import ChatskyProcess, Order
from tests.services.local import LocalBroker, LocalRedis
from tests.services.processes import WorkerProcess
from tests.services.servers import version_at
from worker.records import MainRecord
from worker.stores import Retention
from worker.stores.redis import RedisStore

DOCS: Final = Path(__file__).parents[1] / "docs"
PIPELINE: Final = "tests.bots.chatsky_counting:pipeline"
HANDLER: Final = "tests.bots.counting:answer"
MESSAGES: Final = 50
PROCESSES: Final = 4
SHARDS: Final = 8
SHORT_DIALOGS: Final = 6
"""Around turn 10 there are not 50 turns in one dialog, so they are taken from several."""

WINDOWS: Final = ((10, range(6, 16)), (100, range(76, 126)), (1000, range(976, 1026)), (5000, range(4951, 5001)))
"""The turn that is spoken of, and the turns that are measured for it."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What all of it runs on."""

    broker: LocalBroker
    ours: LocalRedis
    theirs: LocalRedis


@asynccontextmanager
async def workers(servers: Servers, app: str, namespace: str, count: int) -> AsyncIterator[list[WorkerProcess]]:
    """Worker processes that are ready, with everything they need declared."""
    settings = {
        "SWITCHBOARD_AMQP_URL": servers.broker.url,
        "SWITCHBOARD_REDIS_URL": servers.ours.url,
        "SWITCHBOARD_NAMESPACE": namespace,
        "SWITCHBOARD_SHARDS": str(SHARDS),
    }
    topology = Topology(namespace, SHARDS)
    seam = RabbitMQBroker(servers.broker.url)
    await seam.open()
    started: list[WorkerProcess] = []
    try:
        await seam.apply(topology)
        started = [await WorkerProcess.start(["-m", "worker.cli", "run", app], settings) for _ in range(count)]
        for worker in started:
            await worker.ready()
        yield started
    finally:
        await asyncio.gather(*(worker.stop() for worker in started))
        for queue in (*topology.shard_queues, topology.dead):
            await seam.delete_queue(queue)
        await seam.close()


async def lost_by_us(servers: Servers, app: str, label: str, number: int) -> Loss:
    """All messages at once to workers."""
    namespace = f"lost-{app.rpartition('.')[2].partition(':')[0]}-{number}"
    async with (
        workers(servers, app, namespace, PROCESSES),
        BrokerClient(servers.broker.url, namespace=namespace) as client,
    ):
        replies = await asyncio.gather(*(client.ask(f"message {n}", "ada") for n in range(MESSAGES)))
    store = RedisStore(servers.ours.url, namespace, Retention())
    await store.open()
    loaded = await store.peek("ada", MESSAGES)
    await store.close()
    assert loaded is not None
    assert loaded.main is not None
    misc = MainRecord.model_validate_json(loaded.main).misc
    counted = misc["turns"] if "turns" in misc else len(misc["applied"])
    failed = Counter(reply.error.code for reply in replies if reply.error)
    return Loss(label, counted, len(loaded.turns), dict(failed))


async def lost_by_chatsky(servers: Servers, label: str, number: int, *, at_once: bool) -> Loss:
    """All messages to Chatsky in as many processes, each with its share of them."""
    ctx_id = f"ada-{at_once}-{number}"
    processes = await asyncio.gather(*(ChatskyProcess.start(servers.theirs.url) for _ in range(PROCESSES)))
    try:
        texts = [f"message {n}" for n in range(MESSAGES)]
        orders = [Order(ctx_id, texts[place::PROCESSES], at_once) for place in range(PROCESSES)]
        done = await asyncio.gather(*(run.run(order) for run, order in zip(processes, orders, strict=True)))
    finally:
        for process in processes:
            await process.stop()
    raised = sum((Counter(one.errors) for one in done), Counter[str]())
    async with Redis.from_url(servers.theirs.url) as client:
        misc = await client.hget(f"chatsky_keys:main:{ctx_id}", "misc")
        kept = await client.hlen(f"chatsky_keys:turns:{ctx_id}:requests")
    return Loss(label, json.loads(misc or b"{}").get("turns", 0), kept, dict(raised))


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used, all its threads together, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@dataclass(slots=True)
class Side:
    """One of the two, as it is measured: who runs the turns, and the Redis it uses."""

    pid: int
    redis_pid: int
    seconds: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)

    def read(self) -> tuple[float, float, float]:
        """The clock and the processor time of both."""
        return time.perf_counter(), processor_seconds(self.pid), processor_seconds(self.redis_pid)

    def note(self, before: tuple[float, float, float]) -> None:
        """Note what a turn has taken since `read`."""
        for taken, now, then in zip((self.seconds, self.process, self.redis), self.read(), before, strict=True):
            taken.append(now - then)

    def take(self, turn: int, who: str) -> Length:
        """The medians of what was noted, and begin anew."""
        every = [second * 1000 for second in self.seconds]
        process, redis = statistics.median(self.process) * 1000, statistics.median(self.redis) * 1000
        self.seconds, self.process, self.redis = [], [], []
        return Length(who, turn, statistics.median(every), process, redis, every)


class Race:
    """Two dialogs of the same length, one on each side."""

    def __init__(self, client: BrokerClient, chatsky: ChatskyProcess, ours: Side, theirs: Side) -> None:
        self._client = client
        self._chatsky = chatsky
        self._ours = ours
        self._theirs = theirs

    async def build(self, ctx_id: str, turns: range) -> None:
        """Run turns without measuring."""
        for number in turns:
            await self._client.ask("hello", ctx_id)
            if number % 100 == 0:
                sys.stdout.write(f"\r{ctx_id}: turn {number}")
                sys.stdout.flush()
        await self._chatsky.run(Order(ctx_id, ["hello"] * len(turns)))

    async def measure(self, ctx_id: str, turns: range) -> None:
        """Run turns, one here and one there, and note what each takes."""
        for number in turns:
            before = self._ours.read()
            reply = await self._client.ask("hello", ctx_id)
            self._ours.note(before)
            before = self._theirs.read()
            done = await self._chatsky.run(Order(ctx_id, ["hello"]))
            self._theirs.note(before)
            self._theirs.seconds[-1] = done.seconds[0]  # without the pipe to the process
            assert reply.turn == number
            assert not done.errors

    def take(self, turn: int) -> list[Length]:
        """What was measured for a turn."""
        return [self._ours.take(turn, "Switchboard"), self._theirs.take(turn, "Chatsky's Redis storage")]


async def lengths(servers: Servers) -> list[Length]:
    """What a turn costs at each length of its dialog."""
    results: list[Length] = []
    async with AsyncExitStack() as stack:
        [worker] = await stack.enter_async_context(workers(servers, PIPELINE, "length", 1))
        client = await stack.enter_async_context(BrokerClient(servers.broker.url, namespace="length"))
        chatsky = await ChatskyProcess.start(servers.theirs.url)
        stack.push_async_callback(chatsky.stop)
        ours, theirs = Side(worker.pid, servers.ours._pid), Side(chatsky.pid, servers.theirs._pid)
        race = Race(client, chatsky, ours, theirs)
        await race.build("warm", range(1, 101))
        (short, window), *longer = WINDOWS
        for number in range(SHORT_DIALOGS):
            await race.build(f"short {number}", range(1, window.start))
            await race.measure(f"short {number}", window)
        results += race.take(short)
        built = 1
        for turn, window in longer:
            await race.build("long", range(built, window.start))
            await race.measure("long", window)
            built = window.stop
            results += race.take(turn)
    return results


async def losses(servers: Servers, rounds: int) -> list[Loss]:
    """What is left of all the messages, so many times, the ways alternating."""
    results: list[Loss] = []
    for number in range(rounds):
        results += [
            await lost_by_us(servers, HANDLER, "Switchboard, 4 workers, a handler", number),
            await lost_by_us(servers, PIPELINE, "Switchboard, 4 workers, a Chatsky pipeline", number),
            await lost_by_chatsky(servers, "Chatsky in 4 processes, one message after another", number, at_once=False),
            await lost_by_chatsky(servers, "Chatsky in 4 processes, all at once", number, at_once=True),
        ]
        tell(f"round {number + 1} of {rounds}: counted {[loss.counted for loss in results[-4:]]} of {MESSAGES}")
    return results


def tell(line: str) -> None:
    """Say how far it is."""
    sys.stdout.write(f"\r{line}\n")
    sys.stdout.flush()


def machine(versions: Iterable[str]) -> str:
    """What it was measured on."""
    return f"{os.cpu_count()} cores ({platform.machine()}), {', '.join(versions)}, Chatsky {version('chatsky')}"


async def main(rounds: int) -> None:
    """Measure, and write the page, the plot and the data."""
    servers = Servers(LocalBroker(), LocalRedis(), LocalRedis())
    every: Sequence[LocalBroker | LocalRedis] = (servers.broker, servers.ours, servers.theirs)
    try:
        await asyncio.gather(*(server.start() for server in every))
        versions = [await asyncio.to_thread(version_at, server.url) for server in every[:2]]
        lost = await losses(servers, rounds)
        long = await lengths(servers)
    finally:
        for server in every:
            await asyncio.to_thread(server.remove_now)
    data = {"losses": [asdict(loss) for loss in lost], "lengths": [asdict(length) for length in long]}
    (DOCS / "chatsky.json").write_text(json.dumps(data, indent=1) + "\n")
    plot(long, DOCS / "chatsky.svg")
    pyplot.close()
    (DOCS / "chatsky.md").write_text(page(lost, long, machine(versions), MESSAGES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chatsky_comparison", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args().rounds))
