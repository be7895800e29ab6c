"""What telemetry costs a turn: 1 where it is more than 3 % of the processor time.

`python -m tests.bench.telemetry` has one worker count for some turns and not for the next ones, by turns through all of
a run, and compares neighbours: what else the machine does meets both. `--without DIRECTORY` compares whole runs with
those of a checkout from before there was any telemetry; two runs of the very same code differ by a tenth there.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.contest import SHARDS, own_place, settings
from tests.bench.measure import Contender, Run, run
from tests.bench.place import Place
from tests.bench.work import Work

ALLOWED: Final = 1.03
"""Times the processor time of a turn without telemetry: 3 % more."""

APP: Final = "tests.bots.benchmark:answer"
WITH: Final = ("-m", "worker.cli", "run", APP)
WARM: Final = 4
"""Phases before those that count."""

ELSEWHERE: Final = (
    "import sys; sys.path[0] = {directory!r}; sys.argv = ['switchboard', 'run', {app!r}]; "
    "from worker.cli import main; main()"
)


async def once(place: Place, work: Work, name: str, command: tuple[str, ...], **environ: str) -> Run:
    """One run. Raises `RuntimeError` where a reply is missing or wrong."""
    await place.prepare(SHARDS)
    try:
        await place.fill(work)
        found = await run(place, Contender(name, command, environ=settings(place) | environ), work)
    finally:
        await place.clear()
    if found.faults.missing or found.faults.lost_updates or found.faults.out_of_order:
        raise RuntimeError(f"{name}: {found.faults}")
    return found


async def by_turns(place: Place, work: Work) -> list[float]:
    """Ratios of one run: each phase with counting by the mean of the two without around it."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "phases"
        command = ("-m", "tests.bench.contenders.untold", "run", APP)
        await once(place, work, "by turns", command, BENCH_PHASES=str(file))
        seconds: list[float] = json.loads(file.read_text())
    counting = range(WARM + 1, len(seconds) - 1, 2)
    return [2 * seconds[place] / (seconds[place - 1] + seconds[place + 1]) for place in counting]


async def by_runs(place: Place, work: Work, directory: str, number: int) -> list[float]:
    """The ratio of two runs."""
    both = {"without": ("-c", ELSEWHERE.format(directory=directory, app=APP)), "with": WITH}
    names = list(both) if number % 2 else list(reversed(both))
    cpu = {name: (await once(place, work, name, both[name])).cpu for name in names}
    return [cpu["with"] / cpu["without"]]


async def measure(rounds: int, work: Work, directory: str | None) -> list[float]:
    """All ratios, told as they come."""
    ratios: list[float] = []
    async with own_place() as place:
        for number in range(rounds):
            if directory is None:
                found = await by_turns(place, work)
            else:
                found = await by_runs(place, work, directory, number)
            ratios += found
            sys.stdout.write(f"round {number + 1}: {statistics.median(found) - 1:+.1%} ({len(found)} pairs)\n")
            sys.stdout.flush()
    return ratios


def main(line: Sequence[str] | None = None) -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--without", metavar="DIRECTORY", help="a checkout that has no telemetry")
    asked = parser.parse_args(line)
    work = Work(asked.requests, asked.requests // 10)
    ratios = asyncio.run(measure(asked.rounds, work, asked.without))
    lower, ratio, upper = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    told = f"{len(ratios)} pairs: median {ratio - 1:+.1%}, half of them from {lower - 1:+.1%} to {upper - 1:+.1%}"
    sys.stdout.write(f"processor time of a turn with telemetry, {told}\n")
    return 1 if ratio > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
