"""Why a bot does not answer: the last lines of the worker's log, and the line of code its turn waits at.

Read only when a test fails.
"""

import asyncio
import logging
import sys
import sysconfig
import threading
import traceback
from collections import deque
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import interfaces
from interfaces.blocking import run_in_daemon_thread
from worker.bot_runs import await_chain

LINES = 50
DEEPEST = 5
"""Frames shown."""

FOREIGN = (
    Path(interfaces.__file__).parent,
    Path(__file__).parents[1],
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platlib")),
)
"""Where code lies that is not the bot's: ours, Python's, and that of libraries."""


class RecentLog(logging.Handler):
    """The last lines that Switchboard has logged, kept while this is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=LINES)
        self._loggers = [logging.getLogger(name) for name in ("interfaces", "worker")]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line, with its traceback where it has one."""
        self._lines.append(self.format(record))

    def __enter__(self) -> Self:
        for logger in self._loggers:
            logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self._loggers:
            logger.removeHandler(self)

    def __str__(self) -> str:
        return "\n".join(["the worker's log:", *self._lines]) if self._lines else "the worker has logged nothing"


def where_the_bot_waits(ctx_id: str) -> str:
    """The bot's own lines that the turn of a context is in now, as in a traceback; empty where it is in none."""
    bot = next((task for task in asyncio.all_tasks() if task.get_name() == f"bot {ctx_id!r}"), None)
    frames = await_chain(bot.get_coro()) if bot is not None else []
    if any(frame.f_code is run_in_daemon_thread.__code__ for frame, _ in frames):
        frames += _in_the_last_thread()
    theirs = [(frame, line) for frame, line in frames if _is_the_bots(frame)]
    return "".join(traceback.StackSummary.extract(iter(theirs)).format()[-DEEPEST:])


def _in_the_last_thread() -> list[tuple[FrameType, int]]:
    """Frames of the last blocking call that was given a thread: a bot that is a plain function."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("blocking ")]
    running = sys._current_frames()  # noqa: SLF001 - the documented way to another thread's frames
    top = running.get(threads[-1].ident or 0) if threads else None
    return list(traceback.walk_stack(top))[::-1] if top is not None else []


def _is_the_bots(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    return not any(path.is_relative_to(folder) for folder in FOREIGN)
