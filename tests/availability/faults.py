"""The faults whose price is measured: each is made once, waited out, healed, and gives a sample for every shard it hit.

A sample is the longest time between two turns of a shard, and between two of its replies, around the fault. Nothing is
subtracted: the stream's own interval and whatever else delays a turn are part of it, as the row without a fault shows.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from tests.availability.fleet import Fleet
from tests.availability.stream import Stream, pauses
from tests.chaos.history import now
from tests.services.rabbitmq_cluster import Cluster
from tests.services.redis_sentinel import RedisWithSentinel

CALM_SECONDS: Final = 3.0
WHOLE_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one fault cost one shard, in seconds."""

    row: str
    repetition: int
    shard: str
    turns: float
    """Longest time between the beginnings of two turns."""
    replies: float
    first: float | None = None
    """From the fault to the beginning of the first turn in another process than before."""


@dataclass(frozen=True)
class Site:
    """What faults are made in: it runs, and is whole before and after each fault."""

    fleet: Fleet
    stream: Stream
    queues: Collection[str]
    cluster: Cluster | None = None
    redis: RedisWithSentinel | None = None

    def owned_by(self, pid: int) -> list[str]:
        """Shards whose last turn ran in this process."""
        return [queue for queue in self.queues if self.stream.pid(queue) == pid]

    def samples(
        self, row: str, repetition: int, queues: Collection[str], fault: int, *, victim: int | None = None
    ) -> list[Sample]:
        """A sample of each of `queues` for the time from `fault` until now."""
        found = []
        for queue in queues:
            answers = self.stream.answers[queue]
            turns = pauses((answer.began for answer in answers), fault, now())[0]
            replies = pauses((answer.replied for answer in answers), fault, now())[0]
            elsewhere = [answer.began for answer in answers if answer.began > fault and answer.pid != victim]
            first = None if victim is None else (min(elsewhere) - fault) / 1e9
            found.append(Sample(row, repetition, queue, turns, replies, first))
        return found

    async def whole(self) -> None:
        """Return once every replica is up, and the workers share the shards by their own word and in fact.

        A standby that was promoted gives a shard back some seconds after the list of workers names its new owner.
        """
        if self.cluster is not None:
            await self.cluster.in_sync()
        async with asyncio.timeout(WHOLE_SECONDS):
            while True:
                await self.fleet.settled()
                await self.stream.answered(now())
                served = Counter(self.stream.pid(queue) for queue in self.queues)
                if max(served.values()) <= ceil(len(self.queues) / len(self.fleet.pids)):
                    return

    async def standbys_wait(self) -> None:
        """Return once the broker knows two consumers of every shard: what workers say is up to half a second old."""
        assert self.cluster is not None
        async with asyncio.timeout(WHOLE_SECONDS):
            while True:
                listed = await self.cluster.rabbitmqctl("-q", "list_consumers", "queue_name", "--no-table-headers")
                consumers = Counter(listed.split())
                if all(consumers[queue] == 2 for queue in self.queues):
                    return


Fault = Callable[[Site, int], Awaitable[list[Sample]]]


async def nothing(site: Site, repetition: int) -> list[Sample]:
    """Three seconds without a fault."""
    began = now()
    await asyncio.sleep(CALM_SECONDS)
    await site.stream.answered(now())
    return site.samples("none", repetition, site.queues, began)


async def planned(site: Site, repetition: int) -> list[Sample]:
    """A worker is told to stop, then another one joins: the shards of the one, then those that go to the other."""
    victim = random.choice(site.fleet.pids)
    queues, began = site.owned_by(victim), now()
    await site.fleet.stop(victim)
    await site.stream.answered(now())
    samples = site.samples("leave", repetition, queues, began, victim=victim)
    await site.whole()
    began = now()
    newcomer = await site.fleet.start()
    await site.whole()
    return samples + site.samples("join", repetition, site.owned_by(newcomer), began)


async def kill(site: Site, repetition: int) -> list[Sample]:
    """SIGKILL to a worker; for each of its shards another one waits."""
    await site.standbys_wait()
    victim = random.choice(site.fleet.pids)
    queues, killed = site.owned_by(victim), now()
    await site.fleet.kill(victim)
    await site.stream.answered(now())
    samples = site.samples("kill", repetition, queues, killed, victim=victim)
    await site.fleet.start()
    await site.whole()
    return samples


async def freeze(site: Site, repetition: int) -> list[Sample]:
    """SIGSTOP to a worker, until all of its shards are served by others."""
    victim = random.choice(site.fleet.pids)
    queues, frozen = site.owned_by(victim), now()
    site.fleet.freeze(victim)
    try:
        await site.stream.answered(now())
    finally:
        site.fleet.thaw(victim)
    samples = site.samples("freeze", repetition, queues, frozen, victim=victim)
    await site.whole()
    return samples


async def lose_node(site: Site, repetition: int) -> list[Sample]:
    """SIGKILL to the RabbitMQ node that leads most shards; two of three are left."""
    assert site.cluster is not None
    leaders = await site.cluster.leaders()
    [(node, _)] = Counter(leaders[queue] for queue in site.queues).most_common(1)
    led = [queue for queue in site.queues if leaders[queue] == node]
    killed = now()
    await site.cluster.kill(node)
    await site.stream.answered(now())
    await asyncio.sleep(CALM_SECONDS)
    samples = site.samples("node, led", repetition, led, killed)
    samples += site.samples("node, other", repetition, set(site.queues) - set(led), killed)
    await site.cluster.start(node)
    await site.whole()
    return samples


async def fail_over(site: Site, repetition: int) -> list[Sample]:
    """SIGKILL to the primary Redis; sentinels make the replica the primary."""
    assert site.redis is not None
    began = now()
    lost = await asyncio.to_thread(site.redis.kill_primary)
    await asyncio.to_thread(site.redis.wait_failed_over, lost)
    await site.stream.answered(now())
    samples = site.samples("redis", repetition, site.queues, began)
    await site.redis.start()
    await site.whole()
    return samples


@dataclass(frozen=True)
class Measurement:
    """One fault, made so many times on servers and workers of its own."""

    fault: Fault
    repetitions: int
    rows: Mapping[str, str]
    """What each row of the table is about."""
    workers: int = 2
    shards: int = 4
    every: float = 0.02
    """Seconds between two requests to one shard."""
    nodes: int = 1
    has_sentinels: bool = False
    heartbeat: int | None = None
    """Of AMQP, in seconds; the product's default where not given."""


MEASUREMENTS: Final[Mapping[str, Measurement]] = {
    "none": Measurement(nothing, 10, {"none": "no fault, for comparison"}),
    "planned": Measurement(
        planned, 10, {"leave": "hand-over: a worker is stopped", "join": "hand-over: a worker joins"}
    ),
    "kill": Measurement(kill, 20, {"kill": "`kill -9` of a worker, a standby waiting"}),
    "freeze": Measurement(freeze, 10, {"freeze": "SIGSTOP of a worker, AMQP heartbeat 2 s"}, heartbeat=2),
    "node": Measurement(
        lose_node,
        10,
        {
            "node, led": "loss of a RabbitMQ node of three: shards it led",
            "node, other": "loss of a RabbitMQ node of three: other shards",
        },
        shards=6,
        every=0.03,
        nodes=3,
    ),
    "redis": Measurement(fail_over, 10, {"redis": "fail-over of Redis, declared down after 1 s"}, has_sentinels=True),
}
