"""Measures how long shards are without service around a fault, and writes docs/availability.md from the data.

`python -m tests.availability.run [FAULT ...]`, or `make availability`: every fault, or those named, each on servers and
workers of its own and within six minutes. Data of faults that are not named stay as they were measured before.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.topology import Topology
from tests.availability.faults import MEASUREMENTS, Measurement, Sample, Site
from tests.availability.fleet import Fleet
from tests.availability.page import Record, page, summary
from tests.availability.stream import Stream
from tests.services.local import LocalRedis
from tests.services.rabbitmq_cluster import Cluster
from tests.services.redis_sentinel import RedisWithSentinel
from tests.services.servers import version_at

DOCS: Final = Path(__file__).parents[2] / "docs"
MOST_SECONDS: Final = 360.0
NAMESPACE: Final = "availability"


@asynccontextmanager
async def opened(measurement: Measurement, directory: Path) -> AsyncIterator[tuple[Site, str]]:
    """What the fault is made in, whole, and the versions of its servers."""
    cluster = Cluster(measurement.nodes)
    redis = RedisWithSentinel() if measurement.has_sentinels else LocalRedis()
    topology = Topology(namespace=NAMESPACE, shards=measurement.shards)
    heartbeat = "" if measurement.heartbeat is None else f"?heartbeat={measurement.heartbeat}"
    amqp_url = ",".join(f"{node.url}{heartbeat}" for node in cluster.nodes)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, redis.remove_now)
        await redis.start()
        await stack.enter_async_context(cluster)
        broker = RabbitMQBroker(cluster.url)
        try:
            await broker.open()
            await broker.apply(topology)
        finally:
            await broker.close()
        durability = "replica" if measurement.has_sentinels else "primary"
        fleet = Fleet(amqp_url, redis.url, topology, size=measurement.workers, durability=durability)
        await stack.enter_async_context(fleet)
        stream = Stream(cluster.url, redis.url, topology, directory, every=measurement.every)
        await stack.enter_async_context(stream)
        single = redis.nodes[0] if isinstance(redis, RedisWithSentinel) else redis
        versions = [await asyncio.to_thread(version_at, url) for url in (cluster.nodes[0].url, single.url)]
        sentinel = redis if isinstance(redis, RedisWithSentinel) else None
        site = Site(fleet, stream, topology.shard_queues, cluster, sentinel)
        await site.whole()
        yield site, ", ".join(versions)


async def measure(name: str, repetitions: int) -> Record:
    """Make one fault so many times. Raises `AssertionError` where a promise was broken meanwhile."""
    measurement = MEASUREMENTS[name]
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="switchboard-availability-") as directory:
        async with _bounded(name), opened(measurement, Path(directory)) as (site, versions):
            began, busy = time.monotonic(), _busy_seconds()
            for repetition in range(repetitions):
                found = await measurement.fault(site, repetition)
                samples += found
                tell(f"{name} {repetition + 1} of {repetitions}: {summary(found)}")
            share = (_busy_seconds() - busy) / (time.monotonic() - began) / (os.cpu_count() or 1)
            violations = await site.stream.stop()
            assert not violations, f"{len(violations)} promises broken, the first: {violations[0]}"
            turns = sum(map(len, site.stream.answers.values()))
    return Record(
        fault=name,
        measured=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=versions,
        repetitions=repetitions,
        turns=turns,
        busy=round(share, 2),
        samples=[asdict(sample) for sample in samples],
    )


@asynccontextmanager
async def _bounded(name: str) -> AsyncIterator[None]:
    """Raise `AssertionError` where the block takes too long."""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            yield
    except TimeoutError as error:
        raise AssertionError(
            f"{name!r} was not measured within {MOST_SECONDS:g} s: measure on a machine that does nothing else, "
            "or with fewer --repetitions"
        ) from error


def tell(line: str) -> None:
    """Show progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _busy_seconds() -> float:
    """Processor time of the whole machine that was not idle, since it was started."""
    times = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(times[:8]) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK")


async def main(faults: list[str], repetitions: int | None) -> None:
    """Measure each fault, and rewrite the page after each."""
    data = DOCS / "availability.json"
    records = {record["fault"]: Record(**record) for record in json.loads(data.read_text())} if data.exists() else {}
    for name in faults:
        records[name] = await measure(name, repetitions or MEASUREMENTS[name].repetitions)
        kept = [records[fault] for fault in MEASUREMENTS if fault in records]
        data.write_text(json.dumps([asdict(record) for record in kept], indent=1) + "\n")
        (DOCS / "availability.md").write_text(page(kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.availability.run", description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(MEASUREMENTS)}; all where none is named")
    parser.add_argument("--repetitions", type=int, help="of each fault, instead of its own number")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults) - MEASUREMENTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    # Clients log every outage, and outages are what is measured.
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(main(arguments.faults or list(MEASUREMENTS), arguments.repetitions))
