"""`switchboard context import`: takes dialogs over from Chatsky's own Redis storage, and shows how far it is."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from interfaces.errors import AppInvalid, ExitCode, MisuseError, Unavailable
from interfaces.nested_loops import nested_loops_prevented
from worker.cli.commands import KEY_FIELDS, STORE_FIELDS, Command, examples, with_settings
from worker.cli.output import print_line
from worker.cli.passwords import refusing_passwords
from worker.cli.servers import opened_store
from worker.settings import Settings
from worker.stores.address import SINGLE, parse_address
from worker.stores.clients import server_client

if TYPE_CHECKING:
    from worker.chatsky.imports import Progress

VARIABLE = "CHATSKY_REDIS_URL"
UNFINISHED = "the import is not finished: run the same command again, what is taken is left alone"
MEND = "mend or delete these where they are, and run the same command again: what is taken is left alone"
SHOWN = 20
"""Refused dialogs that are named."""


@click.command(
    "import",
    cls=Command,
    epilog=examples(
        "switchboard context import redis://old-redis:6379/0",
        "switchboard context import redis://old-redis:6379/0 --prefix my_bot",
    ),
)
@click.argument("url", metavar="URL", envvar=VARIABLE, callback=refusing_passwords(VARIABLE, is_setting=False))
@click.option(
    "--prefix",
    default="chatsky_keys",
    show_default=True,
    help="What the keys begin with: `key_prefix` of the bot's RedisContextStorage.",
)
@with_settings(*STORE_FIELDS, *KEY_FIELDS)
def command(url: str, prefix: str, settings: Settings) -> None:
    """Take dialogs over from the Redis at URL, where Chatsky's own RedisContextStorage keeps them.

    URL may stand in the environment variable CHATSKY_REDIS_URL, and one with a password must. Stop the bot there first.
    Dialogs go on where they stopped; one that is here already is left alone, so where this is interrupted, by whatever,
    run it again. What Chatsky has pickled is only taken where it is plain data, and the originals of messages
    (origin.message) are left out.
    """
    with _shown() as tell:
        try:
            progress = asyncio.run(_import(url, prefix, settings, tell))
        except (KeyboardInterrupt, Unavailable):
            print_line(("! ", "yellow"), UNFINISHED, err=True)
            raise
    print_line(
        f"dialogs: {progress.taken} taken over, {progress.here} were here already, {len(progress.refused)} refused"
    )
    for ctx_id, why in list(progress.refused.items())[:SHOWN]:
        print_line(("! ", "yellow"), f"{ctx_id!r:.200}: {why}", err=True)
    if len(progress.refused) > SHOWN:
        print_line(("! ", "yellow"), f"and {len(progress.refused) - SHOWN} more", err=True)
    if progress.refused:
        print_line(("! ", "yellow"), MEND, err=True)
        raise click.exceptions.Exit(ExitCode.FAILED)


async def _import(url: str, prefix: str, settings: Settings, tell: "Callable[[Progress], None]") -> "Progress":
    try:
        with nested_loops_prevented():
            from worker.chatsky.imports import ChatskyRedis, import_dialogs
    except ModuleNotFoundError as error:
        raise AppInvalid("Chatsky is not installed here: pip install 'switchboard-bots[chatsky]'") from error
    try:
        address = parse_address(url)
    except ValueError as error:
        raise MisuseError(f"URL: {error}") from None
    if address.scheme not in SINGLE:
        raise MisuseError(f"URL: Chatsky's storage is on one server: {' or '.join(f'{name}://' for name in SINGLE)}")
    async with opened_store(settings) as store, server_client(address, settings.redis_timeout, 4) as client:
        return await import_dialogs(ChatskyRedis(client, prefix), store, tell)


@contextmanager
def _shown() -> "Iterator[Callable[[Progress], None]]":
    """A bar on a terminal; elsewhere nothing until it is done."""
    console = Console(stderr=True)
    columns = (TextColumn("dialogs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("dialogs", total=None)
        yield lambda progress: bars.update(task, total=progress.total, completed=progress.done)
