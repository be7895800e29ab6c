"""What telemetry costs a turn: 1 where it is more than 3 % of the processor time.

`python -m tests.bench.telemetry` has one worker do block after block of turns, with its counting and without by turns,
on the embedded servers: nothing in it waits, so a block is all work and two neighbours are alike. `--without DIRECTORY`
compares whole runs on real servers with those of a checkout from before there was any telemetry. There, two runs of the
very same code differ by a tenth, as a worker that is ahead of its servers takes smaller batches: look at many.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from interfaces import BrokerClient, Context
from tests.bench.contenders.untold import count
from tests.bench.contest import SHARDS, own_place, settings
from tests.bench.measure import Contender, run
from tests.bench.place import Place
from tests.bench.work import Work
from worker import Settings, Worker
from worker.collector import relax_collector
from worker.event_loop import event_loop_factory

ALLOWED: Final = 1.03
"""Times the processor time of a turn without telemetry: 3 % more."""

APP: Final = "tests.bots.benchmark:answer"
WITH: Final = ("-m", "worker.cli", "run", APP)
URL: Final = "memory://bench"
CONTEXTS: Final = 500
WARM: Final = 2
"""Blocks before those that count."""

ELSEWHERE: Final = (
    "import sys; sys.path[0] = {directory!r}; sys.argv = ['switchboard', 'run', {app!r}]; "
    "from worker.cli import main; main()"
)


async def answer(_: Context) -> str:
    """The least a bot can do."""
    return "done"


class Blocks:
    """A worker that takes requests only when it is let."""

    def __init__(self, worker: Worker, client: BrokerClient) -> None:
        self._interface = worker._interface
        self._client = client
        self._want = self._interface.want
        vars(self._interface)["want"] = lambda _: None  # The workers' list would have it take them at any time.

    async def block(self, turns: int, *, is_counting: bool) -> float:
        """Processor time of so many turns, publishing excepted."""
        self._want(())
        while self._interface.consumed:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        await asyncio.gather(*(self._client.send("hello", f"user {number % CONTEXTS}") for number in range(turns)))
        count(is_counting)
        goal = self._interface.settled + turns
        began = time.process_time()
        self._want(self._interface.topology.shard_queues)
        while self._interface.settled < goal:  # noqa: ASYNC110 - nor of this
            await asyncio.sleep(0.01)
        return time.process_time() - began


@asynccontextmanager
async def blocks() -> AsyncIterator[Blocks]:
    """On embedded servers."""
    worker = Worker(answer, Settings(amqp_url=URL, context_ttl=60))
    relax_collector()
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    async with BrokerClient(URL) as client, client.replies("taken"):
        yield Blocks(worker, client)
        worker.stop()
        await working


async def by_blocks(pairs: int, turns: int) -> list[float]:
    """Ratios: a block with counting by the mean of the two without around it."""
    async with blocks() as worker:
        seconds = [await worker.block(turns, is_counting=number % 2 == 1) for number in range(WARM + 2 * pairs + 1)]
    count(True)
    cost = [each / turns * 1e6 for each in seconds[WARM:]]
    told = f"{statistics.median(cost[1::2]):.1f} us a turn with, {statistics.median(cost[::2]):.1f} us without"
    sys.stdout.write(f"{told}\n")
    return [2 * cost[place] / (cost[place - 1] + cost[place + 1]) for place in range(1, len(cost), 2)]


async def once(place: Place, work: Work, name: str, command: tuple[str, ...]) -> float:
    """Processor time of a turn in one run. Raises `RuntimeError` where a reply is missing or wrong."""
    await place.prepare(SHARDS)
    try:
        await place.fill(work)
        found = await run(place, Contender(name, command, environ=settings(place)), work)
    finally:
        await place.clear()
    if found.faults.missing or found.faults.lost_updates or found.faults.out_of_order:
        raise RuntimeError(f"{name}: {found.faults}")
    return found.cpu


async def by_runs(pairs: int, turns: int, directory: str) -> list[float]:
    """Ratios of two runs on real servers."""
    commands = {"without": ("-c", ELSEWHERE.format(directory=directory, app=APP)), "with": WITH}
    ratios: list[float] = []
    async with own_place() as place:
        for number in range(pairs):
            names = list(commands) if number % 2 else list(reversed(commands))
            cpu = {name: await once(place, Work(turns, turns // 10), name, commands[name]) for name in names}
            ratios.append(cpu["with"] / cpu["without"])
            sys.stdout.write(f"{cpu['with']:.0f} us with, {cpu['without']:.0f} us without: {ratios[-1] - 1:+.1%}\n")
            sys.stdout.flush()
    return ratios


def main(line: Sequence[str] | None = None) -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3_000, help="of a block, or 10,000 of a run")
    parser.add_argument("--without", metavar="DIRECTORY", help="a checkout that has no telemetry")
    asked = parser.parse_args(line)
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        if asked.without is None:
            ratios = runner.run(by_blocks(asked.pairs, asked.turns))
        else:
            ratios = runner.run(by_runs(asked.pairs, max(asked.turns, 10_000), asked.without))
    lower, ratio, upper = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    told = f"{len(ratios)} pairs: median {ratio - 1:+.1%}, half of them from {lower - 1:+.1%} to {upper - 1:+.1%}"
    sys.stdout.write(f"processor time of a turn with telemetry, {told}\n")
    return 1 if ratio > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
