"""Worker processes on one namespace: started, stopped, killed, frozen, and known to be settled.

Settled means by the workers' own word in Redis: every shard has an owner and a standby, and nobody more than a share.
"""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from math import ceil
from types import TracebackType
from typing import Final, Self

from interfaces.errors import StoreUnavailable
from interfaces.topology import Topology
from tests.services.processes import WorkerProcess
from worker.stores import Retention
from worker.stores.redis import RedisStore

SETTLE_SECONDS: Final = 60.0


class Fleet:
    """Use it as a context manager; inside, `size` workers run and are settled."""

    def __init__(
        self,
        amqp_url: str,
        redis_url: str,
        topology: Topology,
        *,
        size: int,
        app: str = "tests.bots.timed:answer",
        **settings: object,
    ) -> None:
        self._topology = topology
        self._store = RedisStore(redis_url, topology.namespace, Retention())
        self._app = app
        self._size = size
        self._settings: Mapping[str, str] = {
            "SWITCHBOARD_AMQP_URL": amqp_url,
            "SWITCHBOARD_REDIS_URL": redis_url,
            "SWITCHBOARD_NAMESPACE": topology.namespace,
            "SWITCHBOARD_SHARDS": str(topology.shards),
        } | {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        self._workers: dict[int, WorkerProcess] = {}

    @property
    def pids(self) -> list[int]:
        """The workers that run."""
        return [pid for pid, worker in self._workers.items() if worker.is_running]

    async def start(self) -> int:
        """Start one more worker and return its process id once it consumes what falls to it."""
        worker = await WorkerProcess.start(["-m", "worker.cli", "run", self._app], self._settings)
        self._workers[worker.pid] = worker
        await worker.ready()
        return worker.pid

    async def stop(self, pid: int) -> None:
        """SIGTERM, and return when it has ended in order."""
        code = await self._workers.pop(pid).stop()
        assert code == 0, f"worker {pid} ended with {code} when asked to stop"

    async def kill(self, pid: int) -> None:
        """SIGKILL."""
        await self._workers.pop(pid).kill()

    def freeze(self, pid: int) -> None:
        """SIGSTOP."""
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """SIGCONT."""
        os.kill(pid, signal.SIGCONT)

    async def settled(self) -> None:
        """Return once the workers that run, and no other, share all shards. Raises `AssertionError` with their logs."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not await self._is_settled():  # noqa: ASYNC110 - what is looked at is in Redis
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = "\n".join(worker.log[-3000:] for worker in self._workers.values())
            raise AssertionError(f"the workers have not settled within {SETTLE_SECONDS} s:\n{logs}") from None

    async def _is_settled(self) -> bool:
        try:
            said = [json.loads(info) for info in (await self._store.living()).values()]
        except StoreUnavailable:
            return False
        owners = Counter(queue for member in said for queue in member["consuming"])
        in_line = Counter(queue for member in said for queue in member["subscribed"])
        size, shards = len(self.pids), self._topology.shards
        return (
            len(said) == size
            and owners == Counter(self._topology.shard_queues)
            and in_line == Counter(self._topology.shard_queues * min(2, size))
            and all(len(member["consuming"]) <= ceil(shards / size) for member in said)
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undoing:
            undoing.push_async_callback(self._end)
            await self._store.open()
            await asyncio.gather(*(self.start() for _ in range(self._size)))
            await self.settled()
            undoing.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self._workers.values()))
        await self._store.close()
