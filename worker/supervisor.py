"""`switchboard run --processes N`: one supervisor that keeps N worker processes running and never imports the bot.

A worker that dies is started again, later each time it dies soon; one whose exit code says that a restart cannot help
ends them all. No worker outlives its supervisor, however that dies: the standard input of each is the reading end of a
pipe whose writing end the supervisor alone holds. Both ends are here; `worker/cli/run.py` calls them.
"""

import asyncio
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from interfaces.errors import ExitCode
from worker.child import Child, End, prefixed

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
"""Before a first restart: short, for whatever the worker did waits for the standby of its shards only."""

LONGEST_PAUSE_SECONDS: Final = 30.0
"""A server or disk that is mended again is noticed within this, and a loop of crashes costs next to nothing."""

STEADY_SECONDS: Final = 60.0
"""A worker that lived this long had overcome what killed those before it: its next restart is a first one. Longer than
the longest pause, so that dying right after each start never looks steady."""

KILL_MARGIN_SECONDS: Final = 5.0
"""For a worker to end itself by force, with the better report, before it is killed from here."""

NO_RESTART: Final = frozenset({ExitCode.USAGE, ExitCode.APP, ExitCode.BROKER, ExitCode.STORE})
"""Somebody must mend something first, and what one worker meets there, all meet."""

_GRAVEST_FIRST: Final = (
    ExitCode.UNFINISHED,
    ExitCode.USAGE,
    ExitCode.APP,
    ExitCode.BROKER,
    ExitCode.STORE,
    ExitCode.CONSUMER_LOST,
    ExitCode.STUCK,
    ExitCode.FAILED,
    ExitCode.OK,
)


class Restarts:
    """How long to wait before the next restart of one worker."""

    def __init__(self) -> None:
        self._ceiling = FIRST_PAUSE_SECONDS

    def pause(self, lived: float) -> float:
        """Seconds to wait after a worker that lived for `lived` seconds: doubling, bounded, half of it at random.

        Each pause but those at the bound is longer than the one before.
        """
        if lived >= STEADY_SECONDS:
            self._ceiling = FIRST_PAUSE_SECONDS
        ceiling = self._ceiling
        self._ceiling = min(2 * ceiling, LONGEST_PAUSE_SECONDS)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads restarts, guards no secret


def gravest(codes: Iterable[int]) -> int:
    """The exit code of a supervisor whose workers, told to stop, ended with `codes`; negative ones are signals."""
    return min((_known(code) for code in codes), key=_GRAVEST_FIRST.index, default=ExitCode.OK)


def _known(code: int) -> ExitCode:
    if code == -signal.SIGTERM:
        return ExitCode.OK  # told to stop before it had begun: a worker that has begun handles SIGTERM
    if code < 0:
        return ExitCode.UNFINISHED
    return ExitCode(code) if code in _GRAVEST_FIRST else ExitCode.FAILED


class Supervisor:
    """Keeps `processes` workers running until it is told to stop.

    :param command: the command line of a worker. Every user of the machine can read it: no secrets.
    :param environment: the whole environment of a worker.
    :param polite_seconds: a worker's own bound, from a first SIGTERM to its end.
    :param abrupt_seconds: the same from a second one.
    :param pass_on: what is done with each line that a worker writes to standard error, its number before it.
    :param clock: seconds, rising steadily.
    :param sleep: how the pause before a restart is spent.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        processes: int,
        polite_seconds: float,
        abrupt_seconds: float,
        pass_on: Callable[[int, str], None] = prefixed,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._command = command
        self._environment = environment
        self._processes = processes
        self._polite_seconds = polite_seconds
        self._abrupt_seconds = abrupt_seconds
        self._pass_on = pass_on
        self._clock = clock
        self._sleep = sleep
        self._children: set[Child] = set()
        self.restarts = 0
        """Workers started again."""
        self._stopping = asyncio.Event()
        self._signals = 0
        self._kill_timer: asyncio.TimerHandle | None = None
        self._fatal: int | None = None
        self._ends: list[int] = []

    def pids(self) -> dict[int, int]:
        """The processes that run now, by their numbers. From any thread."""
        return {child.number: child.pid for child in tuple(self._children)}

    async def run(self) -> int:
        """Return the exit code once no worker is left: after a stop, or after an end that forbids restarts."""
        lifeline, held_end = os.pipe()
        try:
            async with asyncio.TaskGroup() as keeping:
                for number in range(1, self._processes + 1):
                    keeping.create_task(self._keep(number, lifeline), name=f"keep worker {number}")
        finally:
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            os.close(held_end)
            os.close(lifeline)
        return gravest(self._ends) if self._fatal is None else self._fatal

    def on_signal(self, number: signal.Signals) -> None:
        """Stop: politely on the first signal, at once on the second, by force on the third. Returns at once."""
        self._signals += 1
        if self._signals == 1:
            logger.info("%s: stopping %d workers", number.name, len(self._children))
            self._stop()
        elif self._signals == 2:
            logger.info("%s again: stopping at once", number.name)
            self._tell_all(signal.SIGTERM)
            self._kill_after(self._abrupt_seconds + KILL_MARGIN_SECONDS)
        else:
            self._kill()

    def _stop(self) -> None:
        if self._stopping.is_set():
            return
        # 1. Nothing is started any more. A worker being started at this moment is told as soon as there is one.
        self._stopping.set()
        # 2. All drain at the same time.
        self._tell_all(signal.SIGTERM)
        # 3. Each ends itself within its own bound; where one does not, it is killed.
        self._kill_after(self._polite_seconds + KILL_MARGIN_SECONDS)

    async def _keep(self, number: int, lifeline: int) -> None:
        """Run worker `number` again and again, until a stop."""
        restarts = Restarts()
        while not self._stopping.is_set():
            began = self._clock()
            end = await self._run_once(number, lifeline)
            if self._stopping.is_set():
                self._note(number, end)
            elif end.code in NO_RESTART:
                self._fatal = end.code
                logger.error("worker %d: %s; a restart would not help, all workers stop", number, end.how)
                self._stop()
            else:
                lived = self._clock() - began
                pause = restarts.pause(lived)
                logger.error(
                    "worker %d: %s after %.1f s; it is started again in %.1f s%s",
                    *(number, end.how, lived, pause, end.last_lines),
                )
                await self._pause(pause)
                self.restarts += not self._stopping.is_set()

    def _note(self, number: int, end: End) -> None:
        """Keep how a worker ended after the stop. What ended them all is told once, not by each."""
        self._ends.append(end.code)
        if self._fatal is None and gravest([end.code]) != ExitCode.OK:
            logger.error("worker %d: %s while stopping%s", number, end.how, end.last_lines)

    async def _run_once(self, number: int, lifeline: int) -> End:
        try:
            child = await Child.start(number, self._command, self._environment, lifeline, self._pass_on)
        except OSError as error:
            # No memory or no process to be had just now: no reason to give up those that run.
            return End(ExitCode.FAILED, f"could not be started ({error})")
        logger.info("worker %d: process %d", number, child.pid)
        self._children.add(child)
        if self._stopping.is_set():
            child.send(signal.SIGTERM)
        try:
            return await child.ended()
        finally:
            self._children.discard(child)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until a stop."""
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        stopped = asyncio.create_task(self._stopping.wait(), name="await stop")
        try:
            await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopped.cancel()

    def _tell_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)

    def _kill_after(self, seconds: float) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = asyncio.get_running_loop().call_later(seconds, self._kill)

    def _kill(self) -> None:
        logger.error("killing %d workers; what they worked on is delivered again", len(self._children))
        self._tell_all(signal.SIGKILL)


def end_with_supervisor(stop_seconds: float) -> None:
    """In a worker: end, as on SIGTERM, when standard input ends, which is when the supervisor is gone.

    Where that takes more than `stop_seconds`, end by force: nobody is left who would.
    """
    threading.Thread(target=_await_orphanhood, args=(stop_seconds,), name="watch the supervisor", daemon=True).start()


def _await_orphanhood(stop_seconds: float) -> None:
    # A thread of its own, for a loop that the bot blocks would notice nothing.
    while os.read(0, 1):
        pass  # nothing is ever written
    # Nobody reads standard error any more, and a failing write must not get between this process and its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stop_seconds)
    os._exit(ExitCode.UNFINISHED)
