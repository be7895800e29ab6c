"""Runs of the bot, each within its time. One that does not end even then is left behind, and reaches nothing more.

A run is a task of its own: one that ignores its cancellation, or waits for a thread, can then be left to itself. What
is left behind is counted while it lasts, and said in the log with the place it is at. `watch` ends the process at a
bound, for nothing but its end rids it of a thread. Used by `worker.turns`.
"""

import asyncio
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from time import monotonic
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from interfaces.bot_signals import BotSignal
from interfaces.errors import BotStuck, StoreUnavailable, TurnAbandoned, described
from interfaces.foreign import StrayCancellationError
from interfaces.telemetry import Telemetry
from worker.stores import ContextStore

if TYPE_CHECKING:
    from interfaces.tracing import Tracing

logger = logging.getLogger(__name__)

T = TypeVar("T")

CANCEL_SECONDS: Final = 2.0
"""For a cancelled run to clean up. Twice this fits into what a worker has for closing after its drain timeout."""

DEEPEST: Final = 12
"""Frames of a run that is left behind, in the log."""


class TurnOverdue(Exception):
    """The bot took longer than a turn may."""


class BotExited(Exception):
    """The bot raised `SystemExit`."""


class Run:
    """One run of the bot, from inside."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._threads: list[threading.Thread] = []
        self.task: asyncio.Task[Any]
        self.is_left = False
        self.restart_clock()

    def restart_clock(self) -> None:
        """Give the run all of its time again: what it waited for was not its fault."""
        self.deadline = asyncio.get_running_loop().time() + self._seconds

    def thread_started(self, thread: threading.Thread) -> None:
        """Note a thread that runs the bot."""
        self._threads.append(thread)

    @property
    def goes_on(self) -> bool:
        """Whether anything of it still runs."""
        return not self.task.done() or any(thread.is_alive() for thread in self._threads)

    def place(self) -> str:
        """Where it is, as in a traceback."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to another thread's frames
        stacks = [
            traceback.extract_stack(frames[thread.ident])
            for thread in self._threads
            if thread.is_alive() and thread.ident in frames
        ]
        if not self.task.done():
            stacks += [traceback.StackSummary.extract(iter(await_chain(self.task.get_coro())))]
        return "".join(line for stack in stacks for line in stack.format()[-DEEPEST:])


def await_chain(waiting: Any) -> list[tuple[FrameType, int]]:
    """Frames of a suspended coroutine with their lines, from the outermost to what it waits for."""
    frames: list[tuple[FrameType, int]] = []
    while isinstance(waiting, CoroutineType):
        if waiting.cr_frame is not None:
            frames.append((waiting.cr_frame, waiting.cr_frame.f_lineno))
        waiting = waiting.cr_await
    return frames


class _RunStore:
    """The store as a run sees it: once the run is left behind, it is not there any more."""

    def __init__(self, store: ContextStore, run: Run) -> None:
        self._store = store
        self._run = run

    def __getattr__(self, name: str) -> Any:
        if self._run.is_left:
            raise TurnAbandoned("this run of the bot was overdue, and its turn is over")
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **more: Any) -> Any:
            try:
                return await method(*args, **more)
            except StoreUnavailable:
                self._run.restart_clock()
                raise

        return call


def store_of(run: Run, store: ContextStore) -> ContextStore:
    """`store` for the use of one run. A store that is away costs the run none of its time."""
    return cast("ContextStore", _RunStore(store, run))


class BotRuns:
    """Runs the bot, `seconds` at most each time; `limit` runs may be left behind."""

    def __init__(self, seconds: float, limit: int, telemetry: Telemetry | None = None) -> None:
        telemetry = telemetry or Telemetry()
        self._metrics, self._tracing = telemetry.metrics, telemetry.tracing
        self._seconds_of_runs = telemetry.metrics.stage_seconds["run"]
        self._seconds = seconds
        self._limit = limit
        self._left: set[Run] = set()
        self._too_many = asyncio.Event()

    @property
    def left_behind(self) -> int:
        """Runs that still go on although their turns are over."""
        self._left = {run for run in self._left if run.goes_on}
        return len(self._left)

    async def watch(self) -> None:
        """Raise `BotStuck` once as many runs as may be are left behind."""
        await self._too_many.wait()
        raise BotStuck(
            f"{self._limit} runs of the bot are overdue and do not end: this process ends, so that a fresh one goes on"
        )

    async def run(self, name: str, bot: Callable[[Run], Awaitable[T]]) -> T:
        """What `bot` returns. Raises what it raises (`BotExited` for a `SystemExit`), or `TurnOverdue`."""
        if (tracing := self._tracing) is not None:
            bot = _traced(bot, tracing)
        run = Run(self._seconds)
        self._metrics.turns_running += 1
        began = monotonic()
        task: asyncio.Task[T] = asyncio.create_task(_without_exits(bot, run), name=name)
        run.task = task
        loop = asyncio.get_running_loop()
        try:
            while not task.done() and (left := run.deadline - loop.time()) > 0:
                await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            await self._end(run)
            raise
        finally:
            self._metrics.turns_running -= 1
            self._seconds_of_runs.observe(monotonic() - began)
        if task.done():
            return _outcome(task)
        await self._end(run)
        if run.is_left and self.left_behind >= self._limit:
            self._too_many.set()
        raise TurnOverdue(f"the bot ran for more than {self._seconds:g} s")

    async def _end(self, run: Run) -> None:
        run.task.add_done_callback(_log_late_error)
        run.task.cancel()
        try:
            await asyncio.wait({run.task}, timeout=CANCEL_SECONDS)
        finally:
            if run.goes_on:
                run.is_left = True
                self._left.add(run)
                logger.error("%s does not end, and is left behind at\n%s", run.task.get_name(), run.place())


def _traced(bot: Callable[[Run], Awaitable[T]], tracing: "Tracing") -> Callable[[Run], Awaitable[T]]:
    return lambda run: tracing.stage("run", bot(run))


async def _without_exits(bot: Callable[[Run], Awaitable[T]], run: Run) -> T:
    try:
        return await bot(run)
    except SystemExit as error:
        # The event loop would let it through and end the process, turns of others included.
        raise BotExited(described(error)) from error


def _outcome(task: "asyncio.Task[T]") -> T:
    if task.cancelled():
        raise StrayCancellationError("cancelled from within")
    error = task.exception()
    if isinstance(error, BaseExceptionGroup) and (signals := error.subgroup(BotSignal)) is not None:
        raise _first(signals)  # A task group puts what its tasks raise into one.
    return task.result()


def _first(group: BaseExceptionGroup[BotSignal]) -> BotSignal:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _log_late_error(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("%s ended after its turn was over: %s", task.get_name(), described(error))
