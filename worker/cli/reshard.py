"""`switchboard topology reshard`: changes the number of shards of a live namespace, and shows how far it is."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from interfaces.errors import Unavailable
from interfaces.topology import MAX_PREFETCH, MAX_SHARDS
from worker.cli.commands import RESHARD_FIELDS, Command, examples, with_settings
from worker.cli.output import print_line
from worker.cli.servers import opened_broker, opened_store
from worker.plan import Plan
from worker.resharding import Progress, Resharding, Step
from worker.settings import Settings

UNFINISHED = "the change is not finished, and contexts wait for it: run the same command again, it goes on from here"


@click.command(
    "reshard",
    cls=Command,
    epilog=examples(
        "switchboard topology reshard --shards 32", "switchboard topology reshard --shards 32 --prefetch 16"
    ),
)
@click.option(
    "--shards", "shards", type=click.IntRange(1, MAX_SHARDS), required=True, help="Request queues from now on."
)
@click.option(
    "--prefetch",
    type=click.IntRange(1, MAX_PREFETCH),
    help="Unacknowledged requests per shard from now on; as before where it is not given.",
)
@with_settings(*RESHARD_FIELDS)
def command(shards: int, prefetch: int | None, settings: Settings) -> None:
    """Change the number of shards, or their prefetch, while publishers publish and workers work.

    Order is kept and nothing is lost. A context waits for a few seconds, from when its slot has moved until the queue
    it was in before is worked off; so workers must be running. Where this is interrupted, by whatever, run it again.
    """
    began = time.monotonic()
    with _shown() as tell:
        try:
            plan, stragglers = asyncio.run(_reshard(settings, shards, prefetch, tell))
        except (KeyboardInterrupt, Unavailable):
            print_line(("! ", "yellow"), UNFINISHED, err=True)
            raise
    print_line(
        f"namespace {settings.namespace!r}: {plan.current.shards} shards, generation {plan.current.number} "
        f"({time.monotonic() - began:.1f} s)"
    )
    if stragglers:
        print_line(("! ", "yellow"), f"{stragglers} requests came late to an old queue and were published again")


async def _reshard(
    settings: Settings, shards: int, prefetch: int | None, tell: Callable[[Progress], None]
) -> tuple[Plan, int]:
    async with opened_broker(settings) as broker, opened_store(settings) as store:
        resharding = Resharding(broker, store, settings.topology, tell)
        return await resharding.run(shards, prefetch), resharding.stragglers


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Bars on a terminal; elsewhere a line at the end of each step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_when_done()
        return
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console) as bars:
        tasks: dict[Step, TaskID] = {}

        def tell(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step, total=progress.total)
            bars.update(tasks[progress.step], completed=progress.done)

        yield tell


def _print_when_done() -> Callable[[Progress], None]:
    told: set[Step] = set()

    def tell(progress: Progress) -> None:
        if progress.done == progress.total and progress.step not in told:
            told.add(progress.step)
            print_line(f"{progress.total} {progress.step}", err=True)

    return tell
