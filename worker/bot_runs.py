"""Runs of the bot, so many at a time and each within its time. One that does not end even then is left behind.

A run is a task of its own: one that ignores its cancellation, or waits for a thread, can then be left to itself. What
is left behind has no place and reaches nothing more; it is counted while it lasts, and said in the log with where it
is. `watch` ends the process at a bound, for nothing but its end rids it of a thread. Used by `worker.turns`.
"""

import asyncio
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from interfaces.bot_signals import BotSignal
from interfaces.eager_tasks import begin_task
from interfaces.errors import BotStuck, StoreUnavailable, TurnAbandoned, described
from interfaces.foreign import StrayCancellationError
from interfaces.telemetry import Telemetry
from worker.places import Places
from worker.stores import ContextStore
from worker.time_limits import TimeLimits

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

    def __init__(self, limits: "TimeLimits[Run]") -> None:
        self._limits = limits
        self._threads: list[threading.Thread] = []
        self.asked_at = monotonic()
        self.task: asyncio.Task[Any] | None = None
        """Not before it has its place."""
        self.has_place = self.is_begun = self.is_overdue = self.is_left = False
        self._woken: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Note that it has a place, and that its time begins."""
        self.has_place = True
        self._limits.begin(self)

    def restart_clock(self) -> None:
        """Give the run all of its time again: what it waited for was not its fault."""
        self._limits.begin_again(self)

    async def wait(self) -> None:
        """Return when it has ended, or when its time is over.

        What `asyncio.wait` does at half the cost, which is that of a task: there is one of these in every turn.
        """
        while not self.has_ended and not self.is_overdue:
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken

    def wake(self, _: object = None) -> None:
        """End the wait, to look again."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def thread_started(self, thread: threading.Thread) -> None:
        """Note a thread that runs the bot."""
        self._threads.append(thread)

    @property
    def is_given_up(self) -> bool:
        """Whether who waits for it was cancelled, be it in this tick and without knowing yet."""
        return self._woken is not None and self._woken.cancelled()

    @property
    def has_ended(self) -> bool:
        """Whether its task is over; a thread of it may go on."""
        return self.task is not None and self.task.done()

    @property
    def goes_on(self) -> bool:
        """Whether anything of it still runs."""
        return not self.has_ended or any(thread.is_alive() for thread in self._threads)

    def whereabouts(self) -> str:
        """Where it is, as in a traceback."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to another thread's frames
        stacks = [
            traceback.extract_stack(frames[thread.ident])
            for thread in self._threads
            if thread.is_alive() and thread.ident in frames
        ]
        if self.task is not None and not self.task.done():
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
        self._refuse_left()
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **more: Any) -> Any:
            self._refuse_left()  # Once more: while the store is away, the same call is made again and again.
            try:
                return await method(*args, **more)
            except StoreUnavailable:
                self._run.restart_clock()
                raise

        return call

    def _refuse_left(self) -> None:
        if self._run.is_left:
            raise TurnAbandoned("this run of the bot was overdue, and its turn is over")


def store_of(run: Run, store: ContextStore) -> ContextStore:
    """`store` for the use of one run. A store that is away costs the run none of its time."""
    return cast("ContextStore", _RunStore(store, run))


class BotRuns:
    """Runs the bot, `seconds` at most each time, `concurrency` times at once; `limit` runs may be left behind."""

    def __init__(self, seconds: float, concurrency: int, limit: int, telemetry: Telemetry | None = None) -> None:
        telemetry = telemetry or Telemetry()
        self._metrics, self._tracing = telemetry.metrics, telemetry.tracing
        self._place_seconds, self._run_seconds = (self._metrics.stage_seconds[stage] for stage in ("place", "run"))
        self._seconds = seconds
        self._places = Places(concurrency)
        self._limits = TimeLimits(seconds, _overdue)
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
        """What `bot` returns, once it has had its place. Raises what it raises (`BotExited` for a `SystemExit`), or
        `TurnOverdue`."""
        if (tracing := self._tracing) is not None:
            bot = _traced(bot, tracing)
        run = Run(self._limits)
        start = partial(self._begin, run, name, bot, copy_context())
        self._places.line_up(start)
        try:
            await run.wait()
        except asyncio.CancelledError:
            if run.task is None:
                self._places.leave_line(start)
            else:
                await self._end(run, run.task)
            raise
        task: asyncio.Task[T] = cast("asyncio.Task[T]", run.task)
        if task.done():
            self._leave(run)  # A task that others cancelled before its first step has not done it.
            # Its outcome leads back to the run, by way of the store that a context loads older turns from: every turn
            # would leave a circle of 35 objects, which only the garbage collector frees.
            run.task = None
            try:
                return _outcome(task)
            finally:
                del task  # As there.
        await self._end(run, task)
        if run.is_left and self.left_behind >= self._limit:
            self._too_many.set()
        raise TurnOverdue(f"the bot ran for more than {self._seconds:g} s")

    def _begin(
        self, run: Run, name: str, bot: Callable[[Run], Awaitable[Any]], context: Context, *, at_once: bool
    ) -> bool:
        if run.is_given_up:
            return False
        run.begin()
        self._place_seconds.observe(monotonic() - run.asked_at)
        self._metrics.turns_running += 1
        run.task = begin_task(self._in_a_place(bot, run), name, context, at_once=at_once)
        if not run.is_begun:
            run.task.add_done_callback(run.wake)  # Others may cancel it before its first step.
        return True

    async def _in_a_place(self, bot: Callable[[Run], Awaitable[T]], run: Run) -> T:
        began, run.is_begun = monotonic(), True
        try:
            return await bot(run)
        except SystemExit as error:
            # The event loop would let it through and end the process, turns of others included.
            raise BotExited(described(error)) from error
        finally:
            self._run_seconds.observe(monotonic() - began)
            run.wake()  # Who waits goes on after this step, which ends the task: a tick before callbacks of the task.
            self._leave(run)

    def _leave(self, run: Run) -> None:
        """Give its place back, once."""
        if run.has_place:
            run.has_place = False
            self._limits.end(run)
            self._metrics.turns_running -= 1
            self._places.give_back()

    async def _end(self, run: Run, task: "asyncio.Task[Any]") -> None:
        task.add_done_callback(_log_late_error)
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        finally:
            run.is_left = run.goes_on
            self._leave(run)  # As above.
            if run.is_left:
                self._left.add(run)
                logger.error("%s does not end, and is left behind at\n%s", task.get_name(), run.whereabouts())


def _overdue(run: Run) -> None:
    run.is_overdue = True
    run.wake()


def _traced(bot: Callable[[Run], Awaitable[T]], tracing: "Tracing") -> Callable[[Run], Awaitable[T]]:
    return lambda run: tracing.stage("run", bot(run))


def _outcome(task: "asyncio.Task[T]") -> T:
    if task.cancelled():
        raise StrayCancellationError("cancelled from within")
    error = task.exception()
    try:
        if isinstance(error, BaseExceptionGroup) and (signals := error.subgroup(BotSignal)) is not None:
            raise _first(signals)  # A task group puts what its tasks raise into one.
        return task.result()
    finally:
        del task, error  # The error has this frame in its traceback, which would close a circle.


def _first(group: BaseExceptionGroup[BotSignal]) -> BotSignal:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _log_late_error(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("%s ended after its turn was over: %s", task.get_name(), described(error))
