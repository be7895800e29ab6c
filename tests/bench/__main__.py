"""Runs the benchmark: `python -m tests.bench` measures all and writes docs/performance.md; `--help` tells the rest."""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import compare, contest, growth, latency
from tests.bench.compare import Standing
from tests.bench.contest import BARE, OURS, VARIANTS, Entrant, Report
from tests.bench.page import DATA, DOCS, contest_section, growth_section, latency_section, machine, publish
from tests.bench.place import Place
from tests.bench.results import Outcome, Performance, read
from tests.services.servers import version_at

SECTIONS: Final = (*VARIANTS, "latency", "growth")
QUICK_SECTIONS: Final = ("steady", "latency")
QUICK_SECONDS: Final = 140
"""After this no further run begins, so that the last one ends within three minutes."""
ROUNDS: Final = 5
COMPARED_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    sections: tuple[str, ...]
    entrants: tuple[Entrant, ...]
    rounds: int
    requests: int | None
    latency_seconds: float
    series: tuple[str, ...] = growth.SERIES
    """Of growth."""
    seconds: float = float("inf")
    """After this no further run begins."""

    @property
    def runs(self) -> int:
        """How many there will be, thrown out ones aside."""
        count = sum(len(self.taking_part(kind)) for kind in self.sections if kind in VARIANTS)
        points = sum(setup.series in self.series for setup in growth.SETUPS)
        count += points if "growth" in self.sections else 0
        count += 1 if "latency" in self.sections else 0
        return count * self.rounds

    def taking_part(self, kind: str) -> list[Entrant]:
        """Who does this kind of work."""
        return [entrant for entrant in self.entrants if entrant.has_handler or not VARIANTS[kind].wait]


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or `line` in its place."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most 3 minutes; writes nothing but a table to look at")
    parser.add_argument("--only", help=f"sections, separated by commas: {', '.join(SECTIONS)}")
    parser.add_argument("--series", help=f"of growth only these, separated by commas: {', '.join(growth.SERIES)}")
    parser.add_argument(
        "--contender", action="append", default=[], metavar="NAME", help="only this one; writes nothing"
    )
    parser.add_argument(
        "--rounds", type=int, help=f"default {ROUNDS}, 1 with --quick, {COMPARED_ROUNDS} with --compare"
    )
    parser.add_argument("--requests", type=int, help="at most so many in a run; not with --compare")
    parser.add_argument(
        "--compare", action="store_true", help="measure against docs/performance.json; 1 where a turn costs 15 %% more"
    )
    return parser.parse_args(line)


def plan_of(asked: argparse.Namespace, console: Console) -> Plan:
    """What the command line means. Raises `ValueError` for a name that is not known."""
    sections = tuple(asked.only.split(",")) if asked.only else QUICK_SECTIONS if asked.quick else SECTIONS
    if unknown := set(sections) - set(SECTIONS):
        raise ValueError(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    series = tuple(asked.series.split(",")) if asked.series else growth.SERIES
    if unknown := set(series) - set(growth.SERIES):
        raise ValueError(f"no series {', '.join(sorted(unknown))}; there are: {', '.join(growth.SERIES)}")
    if asked.compare:
        sections, asked.contender = ("steady",), [OURS, BARE]
    entrants = tuple(contest.contenders(asked.contender, console.print))
    rounds = asked.rounds or (COMPARED_ROUNDS if asked.compare else 1 if asked.quick else ROUNDS)
    if asked.quick:
        return Plan(sections, entrants, rounds, asked.requests, 5, series, QUICK_SECONDS)
    return Plan(sections, entrants, rounds, asked.requests, 15, series)


async def measure(plan: Plan, console: Console) -> Performance:
    """All of the plan, on servers of its own."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("servers", total=plan.runs)
        until = time.monotonic() + plan.seconds
        report = Report(progress.console.print, lambda: progress.advance(bar), until)
        async with contest.own_place() as place:
            urls = (place.broker.url, place.redis.url)
            found = Performance(await asyncio.to_thread(lambda: machine([version_at(url) for url in urls])))
            for section in plan.sections:
                progress.update(bar, description=section)
                await _section(section, plan, place, report, found)
    return found


async def _section(section: str, plan: Plan, place: Place, report: Report, found: Performance) -> None:
    if section == "latency":
        found.latency, found.latency_thrown_out = await latency.hold(place, plan.rounds, plan.latency_seconds, report)
    elif section == "growth":
        resized = growth.with_requests(plan.requests)
        found.growth = await growth.grow(place, plan.series, plan.rounds, report, resized)
    else:
        variant = contest.sized(VARIANTS[section], plan.requests or VARIANTS[section].requests)
        found.contests[section] = await contest.hold(place, plan.entrants, variant, plan.rounds, report)


def show(found: Performance, console: Console) -> None:
    """The tables, as the page would have them."""
    sections = [contest_section(kind, outcomes) for kind, outcomes in found.contests.items()]
    if found.latency:
        sections.append(latency_section(found.latency, found.latency_thrown_out))
    if found.growth:
        sections.append(growth_section(found.growth))
    console.print("\n".join(sections), soft_wrap=True, markup=False, highlight=False)


def keep(found: Performance, console: Console) -> None:
    """Write the page, with what an earlier run has measured of the rest on the same machine."""
    recorded = read(DATA)
    if recorded is not None and recorded.machine == found.machine:
        found = found.with_rest_of(recorded)
    elif recorded is not None:
        console.print("recorded on another machine or with other versions: nothing of it is kept")
    publish(found)
    console.print(f"written: {DOCS / 'performance.md'}")


def judge(recorded: Standing, found: Performance, console: Console) -> int:
    """Tell what moved since the recorded measurement; 1 where it is worse than allowed, 2 where nobody can say."""
    try:
        now = Standing.of(found.contests["steady"])
    except ValueError as error:
        console.print(f"nothing to compare: {error}")
        return 2
    console.print(compare.moved(recorded, now), highlight=False)
    return 1 if compare.is_worse(recorded, now) else 0


def recorded_steady() -> list[Outcome]:
    """What docs/performance.json says of steady traffic. Raises `ValueError` where it says nothing."""
    recorded = read(DATA)
    if recorded is None or "steady" not in recorded.contests:
        raise ValueError(f"nothing to compare with: {DATA} has no steady traffic")
    return recorded.contests["steady"]


def main() -> int:
    """Measure; tell, write or compare."""
    console = Console()
    asked = arguments()
    try:
        recorded = recorded_steady() if asked.compare else []
        if recorded:  # A run that is shorter has other costs: contenders take in thousands before they answer.
            asked.requests = max(outcome.work.requests for outcome in recorded)
        before = Standing.of(recorded) if recorded else None
        plan = plan_of(asked, console)
    except ValueError as error:
        console.print(str(error))
        return 2
    found = asyncio.run(measure(plan, console))
    if before is not None:
        return judge(before, found, console)
    show(found, console)
    if not asked.quick and not asked.contender:
        keep(found, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
