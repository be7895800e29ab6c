"""What was measured, as docs/performance.json keeps it, and which runs of it count."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from tests.bench.measure import Run
from tests.bench.work import Work

MOST_BY_OTHERS: Final = 0.1
"""Share of the processors that somebody else may use before a run says nothing."""
REPETITIONS: Final = 2
"""Runs thrown out, for each round asked for, before what there is must do."""


class Watched(Protocol):
    """A run that knows how much of the machine others used meanwhile."""

    @property
    def others(self) -> float:
        """Share of the processors."""


WatchedRun = TypeVar("WatchedRun", bound=Watched)


class Tally(Generic[WatchedRun]):
    """Runs of one thing that is measured: those that count, and how many were disturbed and thrown out."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.kept: list[WatchedRun] = []
        self.thrown_out = 0

    def add(self, run: WatchedRun) -> bool:
        """Keep it, or say False and count it as thrown out."""
        if run.others > MOST_BY_OTHERS:
            self.thrown_out += 1
            return False
        self.kept.append(run)
        return True

    @property
    def is_complete(self) -> bool:
        """Whether no more runs are to be made."""
        return len(self.kept) >= self._rounds or self.thrown_out >= REPETITIONS * self._rounds


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of one figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one contender at one kind of work, or of Switchboard at one point of a series."""

    name: str
    work: Work
    runs: list[Run]
    thrown_out: int = 0
    concurrency: int = 0
    """Handlers that run at a time at most."""
    failure: str = ""
    """Why there are no further runs."""

    @property
    def rate(self) -> Spread:
        """Replies a second."""
        return Spread.of([run.rate for run in self.runs])

    @property
    def cpu(self) -> Spread:
        """Microseconds of the contender's processor time for a reply."""
        return Spread.of([run.cpu for run in self.runs])

    @property
    def servers_cpu(self) -> Spread:
        """The same of RabbitMQ and Redis."""
        return Spread.of([run.servers_cpu for run in self.runs])

    @property
    def ceiling(self) -> float:
        """Replies a second that waiting handlers allow."""
        return self.concurrency / self.work.wait

    def total(self, fault: str) -> int:
        """Faults of one kind in all runs together."""
        return sum(getattr(run.faults, fault) for run in self.runs)


@dataclass(frozen=True, slots=True)
class Step:
    """One point of a series about growth."""

    series: str
    value: int
    outcome: Outcome
    turns: int = 0
    """Turns of each context at the end, where it was asked how much memory they take."""
    memory: float = 0.0
    """Bytes of Redis for one such context."""


@dataclass(frozen=True, slots=True)
class Trips:
    """Round trips of one round, in milliseconds, one list for each way."""

    ways: dict[str, list[float]]
    others: float

    def median(self, way: str) -> float:
        """Half of the round trips took no longer."""
        return statistics.median(self.ways[way])

    def slow(self, way: str) -> float:
        """The 99th percentile."""
        return statistics.quantiles(self.ways[way], n=100, method="inclusive")[98]


@dataclass(slots=True)
class Performance:
    """All of it."""

    machine: dict[str, str]
    contests: dict[str, list[Outcome]] = field(default_factory=dict)
    growth: list[Step] = field(default_factory=list)
    latency: list[Trips] = field(default_factory=list)
    latency_thrown_out: int = 0

    def with_rest_of(self, recorded: "Performance") -> "Performance":
        """This, and from `recorded` what was not measured now."""
        steps = {step.series for step in self.growth}
        kept = [step for step in recorded.growth if step.series not in steps]
        latency = self if self.latency else recorded
        return Performance(
            self.machine,
            {**recorded.contests, **self.contests},
            [*self.growth, *kept],
            latency.latency,
            latency.latency_thrown_out,
        )


_ADAPTER: Final = TypeAdapter(Performance)


def read(path: Path) -> Performance | None:
    """What was recorded, if anything was."""
    return _ADAPTER.validate_json(path.read_bytes()) if path.exists() else None


def write(found: Performance, path: Path) -> None:
    """Record it."""
    path.write_bytes(_ADAPTER.dump_json(found, indent=1) + b"\n")
