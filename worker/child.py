"""One worker process as its supervisor sees it: started, signalled, and how it ended, with its last words.

What it writes to standard error is passed on line by line, each with the worker's number. Neither an endless line nor
a helper process of the bot that keeps the pipe open may hold up the supervisor.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, cast

from interfaces.errors import ExitCode

LAST_LINES: Final = 20
"""Enough for the end of a traceback, and no flood."""

LAST_LINE_CHARACTERS: Final = 1000
"""Of each of these lines; the whole of it has been passed on before."""

LINE_BYTES: Final = 64 * 1024
"""A longer line is passed on in pieces, so that one without an end is not kept in memory."""

LAST_WORDS_SECONDS: Final = 1.0
"""After its end, all a process wrote is in the pipe already. Only a process it left behind can keep that open."""


@dataclass(frozen=True, slots=True)
class End:
    """How a worker process ended. `code` is negative where a signal ended it; both texts are parts of a log record."""

    code: int
    how: str
    last_lines: str = ""


def prefixed(number: int, line: str) -> None:
    """Pass on a line of worker `number` for people."""
    sys.stderr.write(f"[{number}] {line}\n")


class Child(asyncio.SubprocessProtocol):
    """One running process. `start` makes it."""

    def __init__(self, number: int, pass_on: Callable[[int, str], None]) -> None:
        self.number = number
        self._write = pass_on
        self._unfinished_line = b""
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._exited = asyncio.Event()
        self._all_read = asyncio.Event()

    @classmethod
    async def start(
        cls,
        number: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        lifeline: int,
        pass_on: Callable[[int, str], None] | None = None,
    ) -> Self:
        """Run `command` as worker `number`, `lifeline` as its standard input; each line it writes to standard error
        goes to `pass_on`. Raises `OSError`."""
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(number, pass_on or prefixed),
            *command,
            env=environment,
            stdin=lifeline,
            stdout=None,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches every process of the terminal's foreground group; as the supervisor passes it on, a worker
            # in that group would get it twice and not finish its turns.
            start_new_session=True,
        )
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._transport.get_pid()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        # Not by the transport: up to Python 3.12 its `send_signal` may reap the process, and the exit code is lost.
        if not self._exited.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> End:
        """Wait until the process has ended and its last lines are passed on."""
        await self._exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._all_read.wait()
        self._pass_on_unfinished()
        self._transport.close()
        code = self._transport.get_returncode()
        assert code is not None  # noqa: S101 - the transport sets it before it reports the exit
        last = "".join(f"\n    {line}" for line in self._last_lines)
        return End(code, f"process {self.pid} {_described(code)}", f". Its last lines:{last}" if last else "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio once the process runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Called by asyncio with what the process wrote to standard error."""
        *lines, rest = (self._unfinished_line + data).split(b"\n")
        self._unfinished_line = rest
        for line in lines:
            self._pass_on(line)
        if len(rest) > LINE_BYTES:
            self._pass_on_unfinished()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Called by asyncio when nobody can write to the pipe any more."""
        self._all_read.set()

    def process_exited(self) -> None:
        """Called by asyncio at the end of the process."""
        self._exited.set()

    def _pass_on_unfinished(self) -> None:
        line, self._unfinished_line = self._unfinished_line, b""
        if line:
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        text = line.decode(errors="replace").removesuffix("\r")
        self._last_lines.append(text[:LAST_LINE_CHARACTERS])
        self._write(self.number, text)


def _described(code: int) -> str:
    if code < 0:
        with suppress(ValueError):  # a real-time signal has no name
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    name = f" ({ExitCode(code).name})" if code in ExitCode.__members__.values() else ""
    return f"ended with exit code {code}{name}"
