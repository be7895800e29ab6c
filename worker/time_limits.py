"""One timer for all runs of the bot: one for each, made and cancelled again, would be in every turn.

All of them get the same time, so those that were given theirs last are due last. Used by `worker.bot_runs`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Timed = TypeVar("Timed", bound=Hashable)


class TimeLimits(Generic[Timed]):
    """Calls `on_over(timed)` for what has lasted for `seconds`, once, unless it has ended."""

    def __init__(self, seconds: float, on_over: Callable[[Timed], None]) -> None:
        self._seconds = seconds
        self._on_over = on_over
        self._due: OrderedDict[Timed, float] = OrderedDict()
        """Each with its event loop time, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None
        """For what was the earliest when it was set; that may have ended since."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """That has the timer: who runs bots again on a new loop needs a new one."""

    def begin(self, timed: Timed) -> None:
        """Its time begins."""
        loop = asyncio.get_running_loop()
        self._due[timed] = due = loop.time() + self._seconds
        if self._timer is None or self._loop is not loop:
            self._timer, self._loop = loop.call_at(due, self._look), loop

    def begin_again(self, timed: Timed) -> None:
        """Give it all of its time again, unless that is over, or it has ended."""
        if timed in self._due:
            self._due.move_to_end(timed)
            self.begin(timed)

    def end(self, timed: Timed) -> None:
        """It has ended. May be repeated."""
        self._due.pop(timed, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._due:
            timed, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                break
            del self._due[timed]
            self._on_over(timed)
