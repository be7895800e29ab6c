"""A fuzzing run as a page of the documentation: how much was tried, what became of it, what was found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fuzz.guided_runs import GuidedRun
from tests.fuzz.whole_worker import Verdict


@dataclass(slots=True)
class Run:
    """A whole run."""

    command: str
    seed: int
    seeds: int
    seconds: float = 0.0
    workers: dict[str, Verdict] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    guided: Sequence[GuidedRun] | None = None
    findings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Mutated inputs tried."""
        return sum(self.published.values()) + sum(run.executions for run in self.guided or ())

    @property
    def holds(self) -> bool:
        return not self.findings


def page(run: Run) -> str:
    """The page, in Markdown."""
    workers = "\n".join(
        f"| {bot} | {run.published[bot]} | {verdict.answered} | {verdict.reasons.total()} "
        f"| {verdict.refused_by_broker} | {len(verdict.faults)} |"
        for bot, verdict in run.workers.items()
    )
    names = sorted({reason for verdict in run.workers.values() for reason in verdict.reasons})
    reasons = "\n".join(
        f"| `{name}` | " + " | ".join(str(verdict.reasons[name]) for verdict in run.workers.values()) + " |"
        for name in names
    )
    return f"""# A fuzzing run

Written by `{run.command}`
on {datetime.now(UTC):%Y-%m-%d}: {run.total} mutated inputs in {run.seconds:.0f} s, from {run.seeds} files of
`tests/corpus`. Verdict: {"every promise held" if run.holds else f"{len(run.findings)} FINDINGS"}.

## The whole worker

Bodies and property sets, published to a worker on the memory broker. Each is answered, or among the dead letters with
its body and properties untouched and the reason that the decoder gives; none is logged as an error, no task dies, and
every dialog can be read afterwards.

| bot | published | answered | dead letters | refused by the broker itself | faults |
|---|---|---|---|---|---|
{workers}

| reason | {" | ".join(run.workers)} |
|---|{"---|" * len(run.workers)}
{reasons}

## The decoders, guided by coverage

{_guided(run.guided)}
"""


def _guided(runs: Sequence[GuidedRun] | None) -> str:
    if runs is None:
        return "Not run: `atheris` is not installed."
    rows = "\n".join(
        f"| `{run.target}` | {run.executions} | {run.coverage} | {'yes' if run.crash else 'no'} |" for run in runs
    )
    return f"""By `atheris` on our own modules. A target may raise what it is documented to raise; what it accepts can
be stored and read again.

| target | executions | branches covered | crashed |
|---|---|---|---|
{rows}"""
