"""How fast the machine is while something is measured on it, by a fixed piece of work done again and again beside that.

Who shares the processors of a host with others is slowed down by them, by two thirds for seconds at a time where this
was written, and no counter of the system tells: the time is the run's own. A run beside that says nothing.
"""

from statistics import mean
from time import thread_time

STEPS = 2_000
"""Of the fixed piece of work, which takes some 0.2 ms."""


class Pace:
    """Processor time of the fixed piece of work, in seconds: during one run, and at the machine's best so far."""

    def __init__(self) -> None:
        self._looks: list[float] = []
        self._best = float("inf")

    def begin(self) -> None:
        """Look at a new run."""
        self._looks.clear()

    def look(self) -> None:
        """Do the work once."""
        began = thread_time()
        kept: dict[int, str] = {}
        for step in range(STEPS):
            kept[step % 500] = str(step)
        self.note(thread_time() - began)

    def note(self, seconds: float) -> None:
        """Note what it took."""
        self._looks.append(seconds)

    def slowed(self) -> float:
        """How many times longer than at its best it took in this run, on average; 1 where nobody has looked.

        The best is the tenth of a run's looks that took least, in whichever run so far that was shortest.
        """
        if not self._looks:
            return 1.0
        self._best = min(self._best, sorted(self._looks)[len(self._looks) // 10])
        return max(1.0, mean(self._looks) / self._best)
