"""Whether Switchboard got slower since docs/performance.json was written, measured against the bare loop both times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.contest import BARE, OURS
from tests.bench.results import Outcome

WORSE: Final = 0.15
"""Share by which the processor time of a turn may be worse than recorded."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Switchboard as multiples of the bare loop."""

    rate: float
    cpu: float
    """The steadier of the two: what else the machine does takes time, and hardly makes the same work longer."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Standing":
        """By the medians of both. Raises `ValueError` where one was not measured."""
        found = {each.name: each for each in outcomes if each.runs}
        if missing := {OURS, BARE} - found.keys():
            raise ValueError(f"not measured: {', '.join(sorted(missing))}")
        ours, bare = found[OURS], found[BARE]
        return cls(ours.rate.median / bare.rate.median, ours.cpu.median / bare.cpu.median)


def moved(recorded: Standing, now: Standing) -> str:
    """What is different, a line for each figure."""
    rate, cpu = now.rate / recorded.rate - 1, now.cpu / recorded.cpu - 1
    return (
        f"rate, as a share of the bare loop's: {recorded.rate:.1%} recorded, {now.rate:.1%} now ({rate:+.1%})\n"
        f"processor time of a reply, times the bare loop's: {recorded.cpu:.2f} recorded, {now.cpu:.2f} now ({cpu:+.1%})"
    )


def is_worse(recorded: Standing, now: Standing) -> bool:
    """Whether a turn costs more than the recorded one and what is allowed."""
    return now.cpu > recorded.cpu * (1 + WORSE)
