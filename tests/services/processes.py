"""A worker as a real process: started, awaited by a line of its log, signalled, and never left behind.

Its log goes to memory, so that a test which fails can show it. Started by the fixtures of `tests/integration`.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60
STOP_SECONDS = 60
LINE_LIMIT = 4 * 1024 * 1024


class WorkerProcess:
    """One running worker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"log of process {process.pid}")

    @classmethod
    async def start(cls, arguments: list[str], settings: Mapping[str, str]) -> Self:
        """Run `python ARGUMENTS` with these `SWITCHBOARD_*` settings and no others."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env={**environ, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def log(self) -> str:
        """Everything written to standard error so far."""
        return "".join(self._lines)

    async def ready(self) -> Self:
        """Return when it consumes every shard. Raises `AssertionError` with its log where that does not happen."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not re.search(r"\bready\b", self.log):
                    assert not self._reading.done(), f"the worker ended:\n{self.log}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the worker was not ready within {READY_SECONDS} s:\n{self.log}") from None
        return self

    async def logged(self, text: str) -> None:
        """Return when `text` is in its log. Raises `AssertionError` with the log where that does not happen."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while text not in self.log:
                    assert not self._reading.done(), f"it ended:\n{self.log}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {READY_SECONDS} s: {text}\n{self.log}") from None

    async def ended(self) -> int:
        """Wait for its end; its exit code, or the negative number of the signal that killed it."""
        code = await self._process.wait()
        await self._reading
        return code

    async def stop(self) -> int:
        """Ask it to stop in order and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.ended()

    async def kill(self) -> None:
        """End it, whatever it does, if it still runs."""
        if self.is_running:
            self._process.kill()
        async with asyncio.timeout(STOP_SECONDS):  # Its log is open for as long as anything that it started lives.
            await self.ended()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._lines.append(line.decode(errors="replace"))
            self._changed.set()
        self._changed.set()
