"""The servers and workers of one chaos run, all local processes of its own, with a proxy in each way between them.

Every worker reaches RabbitMQ and Redis through links of its own, so that one can be cut off while the others go on. All
time limits are short, so that a fault can outlast every one of them in seconds. Nothing is left behind on exit.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.topology import Topology
from tests.chaos.workers import Link, WorkerSlot
from tests.services.local import PACKAGES, SEARCH_PATH, LocalRedis
from tests.services.packages import require_programs
from tests.services.processes import WorkerProcess
from tests.services.rabbitmq_cluster import Cluster
from tests.services.redis_sentinel import RedisWithSentinel
from tests.services.servers import Server

NAMESPACE: Final = "chaos"
HEARTBEAT_SECONDS: Final = 2
PUBLISH_TIMEOUT_SECONDS: Final = 3.0
REDIS_TIMEOUT_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 5.0
OUTLAST_SECONDS: Final = 7.0
"""Longer than each of the times above, and than the two heartbeats after which RabbitMQ gives a client up."""

WORKER: Final = ("-m", "worker.cli", "run")
RESHARD: Final = ("-m", "worker.cli", "topology", "reshard", "--shards")
OTHER_VERSION: Final = ("-m", "tests.chaos.other_version", "run")


FSYNC_ALWAYS: Final = ("--appendfsync", "always")


class DurableRedis(LocalRedis):
    """A Redis that writes to its disk before it answers, so that a kill loses nothing it has said."""

    def __init__(self) -> None:
        super().__init__()
        self._command += FSYNC_ALWAYS


class World:
    """Use it as a context manager: inside, everything runs and the topology is declared."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 4,
        shards: int = 8,
        nodes: int = 3,
        sentinel: bool = False,
        worker: Sequence[str] = WORKER,
        app: str = "tests.chaos.bot:answer",
        prefetch: int = 32,
        outbox: int = 128,
    ) -> None:
        require_programs(PACKAGES, SEARCH_PATH)
        self.directory = directory
        self.topology = Topology(namespace=NAMESPACE, shards=shards)
        self.cluster = Cluster(nodes)
        self.redis = RedisWithSentinel(*FSYNC_ALWAYS) if sentinel else DurableRedis()
        """Alone, or a primary with a replica and sentinels: then a turn counts once the replica has it too."""
        self.publishers = self._broker_links("publishers")
        self._app = app
        self._worker = tuple(worker)
        self._settings = {
            "SWITCHBOARD_NAMESPACE": NAMESPACE,
            "SWITCHBOARD_SHARDS": str(shards),
            "SWITCHBOARD_PREFETCH": str(prefetch),
            "SWITCHBOARD_OUTBOX": str(outbox),
            "SWITCHBOARD_PUBLISH_TIMEOUT": str(PUBLISH_TIMEOUT_SECONDS),
            "SWITCHBOARD_REDIS_TIMEOUT": str(REDIS_TIMEOUT_SECONDS),
            "SWITCHBOARD_DRAIN_TIMEOUT": str(DRAIN_SECONDS),
            "SWITCHBOARD_WATCH_EVERY": "1",
            "SWITCHBOARD_DURABILITY": "replica" if sentinel else "primary",
        }
        self.slots = [self._slot(f"worker {number}") for number in range(workers)]
        self.shards = shards
        """How many there are, by the last change that was made."""
        self._guests = 0
        self._cleaning = AsyncExitStack()
        self._supervising: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as cleaning:
            cleaning.push_async_callback(self.cluster.remove)
            cleaning.push_async_callback(asyncio.to_thread, self.redis.remove_now)
            await asyncio.gather(asyncio.to_thread(self.cluster.start_now), self.redis.start())
            await self._declare()
            for link in self.publishers:
                cleaning.push_async_callback(link.close)
                await link.start()
            for slot in self.slots:
                await self._open(slot, cleaning)
            for slot in self.slots:
                await slot.running.ready()
            self._supervising = [asyncio.create_task(slot.supervise()) for slot in self.slots]
            cleaning.push_async_callback(self._stop_supervising)
            self._cleaning = cleaning.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cleaning.aclose()

    @property
    def publishers_url(self) -> str:
        """Where publishers reach RabbitMQ: through the link that faults are made in."""
        return _broker_url(self.publishers)

    @property
    def server_urls(self) -> list[str]:
        """One RabbitMQ node, and one Redis."""
        redis = self.redis.nodes[0] if isinstance(self.redis, RedisWithSentinel) else self.redis
        return [self.cluster.nodes[0].url, redis.url]

    @property
    def links(self) -> list[Link]:
        """Every link."""
        return [*self.publishers, *(link for slot in self.slots for link in slot.links)]

    @property
    def unasked_ends(self) -> list[str]:
        """Ends of workers that nobody has caused, with the last lines of their logs."""
        return [end for slot in self.slots for end in slot.unasked_ends]

    async def guest(self) -> WorkerSlot:
        """One more worker, started; whoever asks for it closes it."""
        self._guests += 1
        slot = self._slot(f"guest {self._guests}")
        for link in slot.links:
            await link.start()
        await self._start(slot)
        return slot

    async def begin_resharding(self, shards: int) -> WorkerProcess:
        """Start the command that changes the number of shards."""
        settings = self._settings | {
            "SWITCHBOARD_AMQP_URL": self.cluster.url,
            "SWITCHBOARD_REDIS_URL": self.redis.url,
        }
        del settings["SWITCHBOARD_SHARDS"]
        return await WorkerProcess.start([*RESHARD, str(shards)], settings)

    def swap_version(self, slot: WorkerSlot) -> None:
        """Let the slot's next process be a worker of the other version."""
        is_other = tuple(slot.arguments[:-1]) == OTHER_VERSION
        slot.arguments = (*(self._worker if is_other else OTHER_VERSION), self._app)

    async def heal(self) -> None:
        """Undo whatever is left of any fault. The servers run; a fault that stopped one has started it again."""
        for link in self.links:
            link.delay = 0.0
            link.resume()
        for slot in self.slots:
            async with slot.lock:
                if slot.process is not None and slot.process.is_running and slot.is_frozen:
                    slot.thaw()

    async def stop_workers(self) -> list[int]:
        """SIGTERM to all workers; their exit codes."""
        await self._stop_supervising()
        return list(await asyncio.gather(*(slot.terminate() for slot in self.slots)))

    async def depths(self) -> dict[str, int]:
        """Messages of each queue, ready and unacknowledged."""
        listed = await self.cluster.rabbitmqctl("--quiet", "list_queues", "--no-table-headers", "name", "messages")
        return {name: int(count) for name, count in (line.split("\t") for line in listed.splitlines() if line)}

    async def describe_queues(self) -> str:
        """What RabbitMQ tells of queues and consumers, for whoever must explain a run that hung."""
        columns = ("name", "messages_ready", "messages_unacknowledged", "consumers")
        queues = await self.cluster.rabbitmqctl("--quiet", "list_queues", *columns)
        consumers = ("queue_name", "channel_pid", "active", "activity_status", "prefetch_count")
        return queues + await self.cluster.rabbitmqctl("--quiet", "list_consumers", *consumers)

    async def _declare(self) -> None:
        broker = RabbitMQBroker(self.cluster.url)
        await broker.open()
        try:
            await broker.apply(self.topology)
        finally:
            await broker.close()

    async def _open(self, slot: WorkerSlot, cleaning: AsyncExitStack) -> None:
        cleaning.push_async_callback(slot.close)
        for link in slot.links:
            await link.start()
        await self._start(slot)

    async def _start(self, slot: WorkerSlot) -> None:
        link = slot.redis
        slot.settings = self._settings | {
            "SWITCHBOARD_AMQP_URL": _broker_url(slot.brokers),
            "SWITCHBOARD_REDIS_URL": self.redis.url if link is None else f"redis://{link.host}:{link.port}/0",
        }
        await slot.start()

    async def _stop_supervising(self) -> None:
        for task in self._supervising:
            task.cancel()
        await asyncio.gather(*self._supervising, return_exceptions=True)

    def _slot(self, name: str) -> WorkerSlot:
        brokers = self._broker_links(name)
        redis = None if isinstance(self.redis, RedisWithSentinel) else self._link(f"{name}'s redis", self.redis)
        log = self.directory / f"{name.replace(' ', '-')}.log"
        return WorkerSlot(name, (*self._worker, self._app), {}, brokers, redis, log)

    def _broker_links(self, name: str) -> list[Link]:
        return [self._link(f"{name}'s node {number}", node) for number, node in enumerate(self.cluster.nodes)]

    @staticmethod
    def _link(name: str, server: Server) -> Link:
        parts = urlsplit(server.url)
        return Link(name, parts.hostname or "", parts.port or 0)


def _broker_url(links: Sequence[Link]) -> str:
    return ",".join(f"amqp://guest:guest@{link.host}:{link.port}/?heartbeat={HEARTBEAT_SECONDS}" for link in links)
