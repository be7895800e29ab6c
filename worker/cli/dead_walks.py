"""What the commands of `switchboard dead` share: a walk through the queue with a bar, and what it has found."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from interfaces.brokers import Broker
from interfaces.topology import MAX_PREFETCH
from worker.cli.output import print_line
from worker.cli.servers import opened_broker
from worker.dead_letters import DeadLetter
from worker.dead_queue import Tell, Walk, walking
from worker.settings import Settings

SCANNED: Final = 10_000

scan_option = click.option(
    "--scan",
    type=click.IntRange(1, MAX_PREFETCH),
    default=SCANNED,
    show_default=True,
    help="Dead letters held at most while looking for matches, from the oldest on.",
)


@dataclass(frozen=True, slots=True)
class Found:
    """The dead letters that match."""

    letters: list[DeadLetter]
    total: int
    seen: int
    is_cut: bool

    def as_data(self, limit: int | None) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "total": self.total,
            "looked_at": self.seen,
            "matching": len(self.letters),
            "more": self.is_cut,
            "dead_letters": [letter.as_data() for letter in self.letters[:limit]],
        }


@asynccontextmanager
async def opened_walk(settings: Settings, most: int, *, has_bar: bool = True) -> AsyncIterator[tuple[Broker, Walk]]:
    """The broker, and a walk through the dead letters of the settings' namespace."""
    async with opened_broker(settings) as broker:
        with bar("dead letters", is_shown=has_bar) as tell:
            async with walking(broker, settings.topology, most, tell) as walk:
                yield broker, walk


@contextmanager
def bar(name: str, *, is_shown: bool = True) -> Iterator[Tell]:
    """A bar on a terminal; elsewhere nothing."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_hidden = not (is_shown and console.is_terminal)
    with Bars(*columns, TimeRemainingColumn(), console=console, disable=is_hidden, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, total=total, completed=done)


def tell_cut(is_cut: bool, held: int | None) -> None:
    """Say that there are more, where there are."""
    if is_cut:
        how_many = "" if held is None else f" {held}"
        print_line(("! ", "yellow"), f"only the oldest{how_many} were looked at, there are more: see --scan", err=True)
