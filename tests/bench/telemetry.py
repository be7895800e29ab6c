"""What telemetry costs: pairs of runs, a worker that is scraped every second and one without; 1 where it is too much.

`python -m tests.bench.telemetry` compares with this very code and its counting taken out, `--without DIRECTORY` with a
checkout from before there was any. Runs of a pair follow one another, so what else the machine does meets both.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tests.bench.contest import SHARDS, own_place, settings
from tests.bench.measure import Contender, Run, run
from tests.bench.place import Place
from tests.bench.work import Work
from tests.services.scrape import get
from tests.services.servers import free_port

ALLOWED: Final = 1.03
"""Times the processor time of a turn without telemetry: 3 % more."""

APP: Final = "tests.bots.benchmark:answer"
SCRAPE_SECONDS: Final = 1.0
DISTURBED: Final = 0.1
"""Share of the processors that somebody else may use in a run that counts."""
TRIES: Final = 4
"""Times that a run is made for one that counts."""

ELSEWHERE: Final = (
    "import sys; sys.path[0] = {directory!r}; sys.argv = ['switchboard', 'run', {app!r}]; "
    "from worker.cli import main; main()"
)


def command_without(directory: str | None) -> tuple[str, ...]:
    """The command line of a worker without telemetry."""
    if directory is None:
        return ("-m", "tests.bench.contenders.untold", "run", APP)
    return ("-c", ELSEWHERE.format(directory=directory, app=APP))


async def scraping(address: str) -> None:
    """Scrape until cancelled, whether or not anybody answers."""
    while True:
        with suppress(OSError):
            await asyncio.to_thread(get, address, "/metrics")
        await asyncio.sleep(SCRAPE_SECONDS)


async def once(place: Place, work: Work, name: str, command: tuple[str, ...], address: str | None) -> Run:
    """One undisturbed run. Raises `RuntimeError` where there is none to be had, or one that is not right."""
    for _ in range(TRIES):
        await place.prepare(SHARDS)
        await place.fill(work)
        environ = settings(place) | ({} if address is None else {"SWITCHBOARD_HEALTH_ADDRESS": address})
        scrapes = None if address is None else asyncio.create_task(scraping(address))
        try:
            found = await run(place, Contender(name, command, environ=environ), work)
        finally:
            if scrapes is not None:
                scrapes.cancel()
            await place.clear()
        if found.faults.missing or found.faults.lost_updates or found.faults.out_of_order:
            raise RuntimeError(f"{name}: {found.faults}")
        if found.others <= DISTURBED:
            return found
    raise RuntimeError(f"{name}: somebody else used the machine in each of {TRIES} runs")


async def measure(pairs: int, work: Work, directory: str | None) -> list[float]:
    """By pair, the processor time of a turn with telemetry as a multiple of that without."""
    ratios: list[float] = []
    async with own_place() as place:
        for number in range(pairs):
            untold = (place, work, "without", command_without(directory), None)
            told = (place, work, "with", ("-m", "worker.cli", "run", APP), f"127.0.0.1:{free_port()}")
            found = {}
            for arguments in (untold, told) if number % 2 else (told, untold):
                found[arguments[2]] = await once(*arguments)
            both = found["with"], found["without"]
            ratios.append(both[0].cpu / both[1].cpu)
            cpu, rate = ([f"{getattr(each, name):,.0f}" for each in both] for name in ("cpu", "rate"))
            sys.stdout.write(f"{cpu[0]} us with, {cpu[1]} us without: {ratios[-1]:.3f} ({rate[0]}/s, {rate[1]}/s)\n")
            sys.stdout.flush()
    return ratios


def main(line: Sequence[str] | None = None) -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--without", metavar="DIRECTORY", help="a checkout that has no telemetry")
    asked = parser.parse_args(line)
    work = Work(asked.requests, asked.requests // 10)
    ratio = statistics.median(asyncio.run(measure(asked.pairs, work, asked.without)))
    sys.stdout.write(f"median of {asked.pairs} pairs: {ratio - 1:+.1%} processor time of a turn\n")
    return 1 if ratio > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
