"""How fast the machine is while something is measured on it, by a fixed piece of work done again and again beside that.

Who shares the processors of a host with others is slowed down by them, by two thirds for seconds at a time where this
was written, and no counter of the system tells: the time is the run's own. It is recorded with every run, and judges
none, as what is measured shares the processors with it too: figures of one contender compare where it is the same.
"""

from statistics import mean
from time import thread_time

STEPS = 2_000
"""Of the fixed piece of work, which takes some 0.2 ms."""


class Pace:
    """Processor time of the fixed piece of work during one run."""

    def __init__(self) -> None:
        self._looks: list[float] = []

    def look(self) -> None:
        """Do the work once."""
        began = thread_time()
        kept: dict[int, str] = {}
        for step in range(STEPS):
            kept[step % 500] = str(step)
        self._looks.append(thread_time() - began)

    @property
    def microseconds(self) -> float:
        """What it took on average; 0 where nobody has looked."""
        return mean(self._looks) * 1e6 if self._looks else 0.0
