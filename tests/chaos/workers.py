"""Worker processes that are killed, frozen, restarted and multiplied, each behind proxies of its own.

A worker that ends without having been told to is a finding: it is noted and, as by any supervisor, started again.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interfaces.errors import ExitCode
from tests.services.processes import WorkerProcess
from tests.services.proxy import TcpProxy

SUPERVISION_SECONDS = 0.2
STOPPED_IN_ORDER = frozenset({0, int(ExitCode.UNFINISHED)})
NOT_STARTED_YET = -signal.SIGTERM
"""A process that gets SIGTERM before Python has got to the command."""


class Link(TcpProxy):
    """A proxy with a name, between one client and one server."""

    def __init__(self, name: str, host: str, port: int) -> None:
        super().__init__(host, port)
        self.name = name

    @property
    def carried(self) -> int:
        """Bytes forwarded, in both directions."""
        return self.sent + self.received


@dataclass(eq=False)
class WorkerSlot:
    """A place that a worker is kept in: its links stay while its processes come and go."""

    name: str
    arguments: Sequence[str]
    settings: Mapping[str, str]
    brokers: Sequence[Link]
    """One to each node."""
    redis: Link | None
    """None where sentinels tell it the address of the primary, which no proxy is in front of."""
    log: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever has a process of this slot down on purpose."""
    process: WorkerProcess | None = None
    unasked_ends: list[str] = field(default_factory=list)

    @property
    def links(self) -> list[Link]:
        """Every way between it and the servers."""
        return [*self.brokers, *([] if self.redis is None else [self.redis])]

    @property
    def is_connected_to_broker(self) -> bool:
        """Whether it has a connection to any node."""
        return any(link.connections for link in self.brokers)

    @property
    def running(self) -> WorkerProcess:
        """The process. Raises `RuntimeError` where there is none."""
        if self.process is None or not self.process.is_running:
            raise RuntimeError(f"{self.name} has no process")
        return self.process

    async def start(self) -> None:
        """Start a process; it may take a while to be ready."""
        self.process = await WorkerProcess.start(list(self.arguments), self.settings)

    async def kill(self) -> int:
        """SIGKILL; the exit code."""
        process = self.running
        os.kill(process.pid, signal.SIGKILL)
        return await self._ended(process)

    async def terminate(self) -> int:
        """SIGTERM, and wait; the exit code. Raises `TimeoutError` where it does not end."""
        process = self.running
        await process.stop()
        return await self._ended(process)

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.running.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.running.pid, signal.SIGCONT)

    @property
    def is_frozen(self) -> bool:
        """What the kernel says."""
        stat = Path(f"/proc/{self.running.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    async def supervise(self) -> None:
        """Start the process again whenever it ended unasked, for ever."""
        while True:
            await asyncio.sleep(SUPERVISION_SECONDS)
            async with self.lock:
                process = self.process
                if process is not None and not process.is_running:
                    code = await self._ended(process)
                    self.unasked_ends.append(f"{self.name} ended by itself with code {code}:\n{process.log[-2000:]}")
                    await self.start()

    async def close(self) -> None:
        """End the process and the links, whatever state they are in."""
        if self.process is not None:
            await self.process.kill()
            self._keep_log(self.process)
        for link in self.links:
            await link.close()

    async def _ended(self, process: WorkerProcess) -> int:
        code = await process.ended()
        self._keep_log(process)
        self.process = None
        return code

    def _keep_log(self, process: WorkerProcess) -> None:
        with self.log.open("a") as log:
            log.write(f"{process.log}--- process {process.pid} of {self.name} ended ---\n")
