"""Memory of one worker over a million requests: `python -m tests.bench.memory [--requests N]`, `make bench-memory`.

Requests are published in portions while the worker answers the one before, and replies are thrown away, so that neither
broker nor worker holds more at the end than at the beginning.
"""

import argparse
import asyncio
import os
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from tests.bench.contest import OURS, contenders, own_place, settings
from tests.bench.measure import ROOT
from tests.bench.place import Place
from tests.bench.work import Work

PORTION: Final = 10_000
CONTEXTS: Final = 1_000
BEGINNING: Final = 50_000
"""Requests after which everything a worker keeps is there."""
PATIENCE: Final = 300
ALLOWED: Final = 1.05


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def measured(place: Place, requests: int, progress: Progress) -> dict[int, int]:
    """Resident bytes after so many requests."""
    await place.prepare(4)
    [entrant] = contenders([OURS], progress.console.print)
    worker = await asyncio.create_subprocess_exec(
        entrant.python,
        *entrant.command,
        cwd=ROOT,
        env={**os.environ, **settings(place), "SWITCHBOARD_MAX_TURNS": "20"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    bar = progress.add_task("requests", total=requests)
    found: dict[int, int] = {}
    try:
        for answered in range(PORTION, requests + 1, PORTION):
            await place.fill(Work(PORTION, CONTEXTS))
            async with asyncio.timeout(PATIENCE):
                while await place.answered() < PORTION:  # noqa: ASYNC110 - the broker tells only when asked
                    await asyncio.sleep(0.02)
            await place.drop_replies()
            found[answered] = resident(worker.pid)
            progress.update(bar, completed=answered)
    finally:
        worker.terminate()
        await worker.wait()
    return found


async def main() -> int:
    """Measure, tell, and judge; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="how many (default %(default)s)")
    requests = parser.parse_args().requests
    console = Console()
    async with own_place() as place:
        with Progress(console=console) as progress:
            found = await measured(place, requests, progress)
    first, last = found[min(BEGINNING, max(found))], found[max(found)]
    for answered in sorted({PORTION, BEGINNING, *range(requests // 10, requests + 1, requests // 10)} & set(found)):
        console.print(f"{answered:>9,} requests  {found[answered] / 2**20:6.1f} MiB")
    console.print(
        f"at the end {last / first:.3f} times what it was after {BEGINNING:,} (at most {ALLOWED} is asked for)"
    )
    return 0 if last <= ALLOWED * first else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
