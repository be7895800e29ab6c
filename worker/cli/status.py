"""`switchboard status`: who works, on what, how fast, and what waits. One look must tell what is wrong.

Workers say it of themselves on their list in Redis, the broker tells what is ready and whether anybody consumes. Shown
again and again with `--watch`, which goes on through an outage and shows that too.
"""

import asyncio
import sys
from collections.abc import Iterator

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from interfaces.cli import printable
from interfaces.errors import Unavailable
from worker.cli.commands import SERVER_FIELDS, Command, examples, with_settings
from worker.cli.output import json_line, json_option, print_json
from worker.cli.overview import Overview, look
from worker.cli.overview_tables import plain_text, rich_tables
from worker.cli.servers import opened_broker, opened_store
from worker.settings import Settings


@click.command(
    "status",
    cls=Command,
    epilog=examples(
        "switchboard status",
        "switchboard status --watch",
        "switchboard status --json | jq '.shards[] | select(.ready > 1000)'",
    ),
)
@json_option
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again every so many seconds, 2 where no number is given, until Ctrl-C.",
)
@with_settings(*SERVER_FIELDS)
def command(as_json: bool, watch: float | None, settings: Settings) -> None:
    """Show workers, shards and dead letters of a namespace.

    For each shard: who owns it, who waits to take over, how many requests are ready, and how many a worker holds. With
    --json and --watch, one line of JSON each time.
    """
    if watch is None:
        _print(asyncio.run(_look_once(settings)), as_json)
    else:
        asyncio.run(_watch(settings, watch, as_json))


async def _look_once(settings: Settings) -> Overview:
    async with opened_broker(settings) as broker, opened_store(settings) as store:
        return await look(broker, store, settings)


async def _watch(settings: Settings, seconds: float, as_json: bool) -> None:
    """Connections are made anew each time: what is shown is then what a new worker would find."""
    console = Console(highlight=False, markup=False, emoji=False)
    if as_json or not console.is_terminal:
        while True:
            _print_or_tell(await _try_to_look(settings), as_json)
            await asyncio.sleep(seconds)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_picture(await _try_to_look(settings)), refresh=True)
            await asyncio.sleep(seconds)


async def _try_to_look(settings: Settings) -> Overview | Unavailable:
    try:
        return await _look_once(settings)
    except Unavailable as error:
        return error


def _picture(found: Overview | Unavailable) -> RenderableType:
    if isinstance(found, Unavailable):
        return Text(f"unavailable: {printable(str(found))}", style="bold red")
    return Group(*_spaced(rich_tables(found)))


def _spaced(parts: list[RenderableType]) -> Iterator[RenderableType]:
    for part in parts:
        yield part
        yield ""


def _print_or_tell(found: Overview | Unavailable, as_json: bool) -> None:
    if isinstance(found, Overview):
        click.echo(json_line(found.as_data())) if as_json else _print(found, as_json=False)
    elif as_json:
        click.echo(json_line({"unavailable": str(found)}))
    else:
        click.echo(f"unavailable: {printable(str(found))}")
    sys.stdout.flush()


def _print(overview: Overview, as_json: bool) -> None:
    if as_json:
        print_json(overview.as_data())
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        click.echo(plain_text(overview))
        return
    for part in rich_tables(overview):
        console.print(part)
