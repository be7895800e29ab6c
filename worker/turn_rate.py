"""How many turns a context may have in a minute: the generic cell rate algorithm, one number for each context.

Kept in this process: a context is at one worker at a time, and one that moves begins anew. Of the libraries for this,
those that wait instead of refusing would hold the request back, and one object for each context costs more than it.
"""

import time
from collections.abc import Callable
from typing import Final

MINUTE: Final = 60.0
SWEEP_AT: Final = 10_000
"""Contexts noted at which those that have had their minute are forgotten."""


class TurnRate:
    """Admits `per_minute` turns of a context at once, and one more whenever its share of a minute has passed.

    :param per_minute: `None` admits everything.
    :param clock: seconds that never go back.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = None if per_minute is None else MINUTE / per_minute
        self._clock = clock
        self._free_at: dict[str, float] = {}
        """When a context will have used up nothing of its minute."""
        self._sweep_at = SWEEP_AT

    def admits(self, ctx_id: str) -> bool:
        """Whether this context may have a turn now. If so, it is counted."""
        if self._interval is None:
            return True
        now = self._clock()
        free_at = max(now, self._free_at.get(ctx_id, now)) + self._interval
        # A millionth of an interval, as the sum of so many of them is no exact minute.
        if free_at - now > MINUTE + self._interval * 1e-6:
            return False
        self._free_at[ctx_id] = free_at
        if len(self._free_at) >= self._sweep_at:
            self._free_at = {ctx_id: time for ctx_id, time in self._free_at.items() if time > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._free_at))
        return True

    def __len__(self) -> int:
        """How many contexts are noted."""
        return len(self._free_at)
