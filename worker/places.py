"""Places for the bot: so many runs at once, in the order they asked, and no place empty while somebody waits for it.

A place that is given back is handed on in the same step of the event loop: under load a tick takes milliseconds, for
which it would stand empty each time (docs/decisions/0027). Used by `worker.bot_runs`.
"""

from collections import deque
from contextlib import suppress
from typing import Protocol


class Start(Protocol):
    """What waits for a place."""

    def __call__(self, *, at_once: bool) -> bool:
        """Begin, as it has one now: `at_once`, or with the next tick of the event loop. False where it does not."""


class Places:
    """So many places, and those who wait for one."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Start] = deque()
        self._is_starting = False

    def line_up(self, start: Start) -> None:
        """Have `start` called once it has a place, here and now where one is free."""
        self._waiting.append(start)
        self._hand_on()

    def leave_line(self, start: Start) -> None:
        """Have it not called any more, if it was not."""
        with suppress(ValueError):
            self._waiting.remove(start)

    def give_back(self) -> None:
        """Have one place more for those who wait."""
        self._free += 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            # What begins may end before its start returns, and give its place back from in there. The next one begins
            # with the next tick then: bots that never wait would otherwise run in each other, one deeper each time,
            # and nothing else beside them.
            at_once, self._is_starting = not self._is_starting, True
            try:
                if not self._waiting.popleft()(at_once=at_once):
                    self._free += 1
            finally:
                self._is_starting = not at_once
