"""Measures how throughput grows with worker processes, for a bot that waits; writes docs/scaling.md and its plot.

Every round starts `switchboard run --processes N`, waits until the shards are spread evenly, fills the queues, and
times the replies from then until the first process may run out of work. Rounds of different N alternate, so that what
else the machine does meets all of them. `make scaling` runs it, on a RabbitMQ and a Redis of its own.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from matplotlib import pyplot
from redis.asyncio import Redis

from interfaces.brokers import Delivery
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology, slot
from tests.bots.waiting import SECONDS
from tests.services.local import LocalBroker, LocalRedis
from tests.services.processes import WorkerProcess
from tests.services.servers import version_at

DOCS: Final = Path(__file__).parents[1] / "docs"
PROCESSES: Final = (1, 2, 4, 8)
SHARDS: Final = 32
CONCURRENCY: Final = 2
CONTEXTS_A_SHARD: Final = 8
SECONDS_OF_WORK: Final = 18
TIMED_UNTIL: Final = 0.8
"""Share of the replies at which a round ends: later, some process may have nothing left to do."""

READY_SECONDS: Final = 60

REPLIES: Final = "scaling.reply.all"
LINEAR: Final = "#999999"
MEASURED: Final = "#1f6f8b"


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement."""

    processes: int
    turns_a_second: float
    busy: float
    """Share of the machine's processor time that was used, by everything on it."""


def processor_seconds() -> tuple[float, float]:
    """Time the machine's processors have been busy, and all of it, since it was started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - idle) / ticks, sum(fields) / ticks


async def fill(client: BrokerClient, requests: int) -> None:
    """Publish requests, as many to each shard."""
    names = [f"ctx-{number}" for number in range(SHARDS * CONTEXTS_A_SHARD * 8)]
    ctx_ids = [
        ctx_id
        for shard in range(SHARDS)
        for ctx_id in [name for name in names if slot(name) % SHARDS == shard][:CONTEXTS_A_SHARD]
    ]

    async def send(ctx_id: str) -> None:
        for number in range(requests // len(ctx_ids)):
            await client.send(str(number), ctx_id)

    await asyncio.gather(*(send(ctx_id) for ctx_id in ctx_ids))


class Arrivals:
    """Counts replies, from `begin` until there are so many."""

    def __init__(self, until: int) -> None:
        self._until = until
        self._count = 0
        self._first = 0
        self._began = 0.0
        self._busy = (0.0, 0.0)
        self._acknowledging: set[asyncio.Task[None]] = set()
        self.result: asyncio.Future[tuple[float, float]] = asyncio.get_running_loop().create_future()
        """Replies a second, and the share of the processors' time that was used."""

    def begin(self) -> None:
        """Start the clock. Raises `RuntimeError` where there is too little left to time."""
        if self._count > 0.8 * self._until:
            raise RuntimeError("the queues were worked off while they were filled: there is nothing left to measure")
        self._first, self._began, self._busy = self._count, time.monotonic(), processor_seconds()

    def __call__(self, delivery: Delivery) -> None:
        self._count += 1
        acknowledging = asyncio.create_task(delivery.channel.ack(delivery))
        self._acknowledging.add(acknowledging)
        acknowledging.add_done_callback(self._acknowledging.discard)
        if self._count == self._until:
            busy, total = processor_seconds()
            rate = (self._count - self._first) / (time.monotonic() - self._began)
            self.result.set_result((rate, (busy - self._busy[0]) / (total - self._busy[1])))


async def spread_evenly(redis: LocalRedis, namespace: str, processes: int) -> None:
    """Wait until every process says that it owns its share of the shards."""
    async with asyncio.timeout(READY_SECONDS), Redis.from_url(redis.url) as client:
        while True:
            said = await client.hgetall(f"{namespace}:workers")
            owned = [len(json.loads(member[13:])["consuming"]) for member in said.values()]
            if owned == [SHARDS // processes] * processes:
                return
            await asyncio.sleep(0.1)


async def measure(broker: LocalBroker, redis: LocalRedis, processes: int, number: int) -> Round:
    """One round, in a namespace of its own."""
    topology = Topology(f"scaling-{processes}-{number}", SHARDS)
    requests = round(processes * CONCURRENCY / SECONDS * SECONDS_OF_WORK)
    requests -= requests % (SHARDS * CONTEXTS_A_SHARD)
    settings = {
        "SWITCHBOARD_AMQP_URL": broker.url,
        "SWITCHBOARD_REDIS_URL": redis.url,
        "SWITCHBOARD_NAMESPACE": topology.namespace,
        "SWITCHBOARD_SHARDS": str(SHARDS),
        "SWITCHBOARD_CONCURRENCY": str(CONCURRENCY),
    }
    seam = RabbitMQBroker(broker.url)
    await seam.open()
    worker: WorkerProcess | None = None
    try:
        await seam.apply(topology)
        await seam.declare_reply_queue(REPLIES, timedelta(hours=1), [(topology.replies_exchange, "#")], replicated=True)
        arrivals = Arrivals(round(requests * TIMED_UNTIL))
        channel = await seam.consume(REPLIES, 1000, arrivals)
        command = ["-m", "worker.cli", "run", "tests.bots.waiting:answer", "--processes", str(processes)]
        worker = await WorkerProcess.start(command, settings)
        await spread_evenly(redis, topology.namespace, processes)
        async with BrokerClient(broker.url, namespace=topology.namespace) as client:
            await fill(client, requests)
            arrivals.begin()
            async with asyncio.timeout(10 * SECONDS_OF_WORK):
                rate, busy = await arrivals.result
        await channel.close()
        return Round(processes, rate, busy)
    finally:
        if worker is not None:
            await worker.stop()
        for queue in (*topology.shard_queues, topology.dead, REPLIES):
            await seam.delete_queue(queue)
        await seam.close()


def median(rounds: Sequence[Round], processes: int) -> float:
    """Turns a second with so many processes."""
    return statistics.median(one.turns_a_second for one in rounds if one.processes == processes)


def table(rounds: Sequence[Round]) -> str:
    """The rows of the documentation's table."""
    one = median(rounds, PROCESSES[0]) / PROCESSES[0]
    rows = []
    for processes in PROCESSES:
        mine = [found for found in rounds if found.processes == processes]
        rates = sorted(found.turns_a_second for found in mine)
        middle = statistics.median(rates)
        busy = statistics.median(found.busy for found in mine)
        rows.append(
            f"| {processes} | {middle:.0f} | {rates[0]:.0f} - {rates[-1]:.0f} | {middle / one:.2f} | "
            f"{middle / one / processes:.0%} | {busy:.0%} |"
        )
    return "\n".join(rows)


def plot(rounds: Sequence[Round], path: Path) -> None:
    """Throughput against processes, every round a dot, beside the line that one process promises."""
    one = median(rounds, PROCESSES[0])
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.plot(PROCESSES, [one * processes for processes in PROCESSES], color=LINEAR, linestyle="--", label="linear")
    medians = [median(rounds, processes) for processes in PROCESSES]
    axes.plot(PROCESSES, medians, color=MEASURED, label="measured, median")
    axes.scatter(
        [found.processes for found in rounds], [found.turns_a_second for found in rounds], color=MEASURED, s=18
    )
    axes.set_xticks(PROCESSES)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("worker processes")
    axes.set_ylabel("turns a second")
    axes.set_title(f"Turns that wait {SECONDS * 1000:.0f} ms, {CONCURRENCY} at a time in each process")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def page(rounds: Sequence[Round], versions: str) -> str:
    """The documentation's page."""
    count = len(rounds) // len(PROCESSES)
    return f"""# How throughput grows with worker processes

Written by `make scaling` from {count} round(s) of each number of processes, alternating. The bot waits
{SECONDS * 1000:.0f} ms, as one does that asks a language model; each process runs {CONCURRENCY} turns at a time
(`SWITCHBOARD_CONCURRENCY={CONCURRENCY}`), so that waiting is the limit and not the processor; a real one runs hundreds.
Every turn loads its context from Redis, commits it, publishes its reply with a confirm, and acknowledges.

Machine: {os.cpu_count()} cores ({platform.machine()}), shared by the workers, {versions}, and the client that
counts the replies. The figures are this machine's; what counts is their ratio.

| processes | turns/s, median | range | times one process | of linear | processors busy |
|---|---|---|---|---|---|
{table(rounds)}

![throughput against processes](scaling.svg)
"""


async def main(rounds: int) -> None:
    """Measure, and write the page, the plot and the data."""
    broker, redis = LocalBroker(), LocalRedis()
    results: list[Round] = []
    try:
        await asyncio.gather(broker.start(), redis.start())
        versions = await asyncio.to_thread(lambda: f"{version_at(broker.url)}, {version_at(redis.url)}")
        for number in range(rounds):
            for processes in PROCESSES:
                results.append(await measure(broker, redis, processes, number))
                found = results[-1]
                sys.stdout.write(
                    f"round {number + 1} of {rounds}: {processes} processes, {found.turns_a_second:.0f} turns/s, "
                    f"processors {found.busy:.0%} busy\n"
                )
                sys.stdout.flush()
    finally:
        for server in (broker, redis):
            await asyncio.to_thread(server.remove_now)
    (DOCS / "scaling.json").write_text(json.dumps([asdict(found) for found in results], indent=1) + "\n")
    plot(results, DOCS / "scaling.svg")
    (DOCS / "scaling.md").write_text(page(results, versions))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args().rounds))
