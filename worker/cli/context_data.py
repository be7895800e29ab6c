"""`switchboard context export` and `delete`: all that is kept of one dialog, to hand over or to delete for good."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click

from interfaces.brokers import Broker
from interfaces.envelope import context_id
from interfaces.errors import ExitCode
from worker.cli.commands import BROKER_FIELDS, KEY_FIELDS, STORE_FIELDS, Command, examples, with_settings
from worker.cli.dead_files import new_file
from worker.cli.dead_tables import print_letters
from worker.cli.dead_walks import bar, scan_option
from worker.cli.output import json_line, print_line
from worker.cli.plans import look_up_plan
from worker.cli.servers import opened_broker, opened_store, refuse_memory
from worker.context_data import Held, count_waiting, export_records, find_letters, look
from worker.dead_queue import drop, walking
from worker.settings import Settings
from worker.stores import ContextStore

FIELDS = tuple(dict.fromkeys((*STORE_FIELDS, *BROKER_FIELDS, *KEY_FIELDS)))


@click.command(
    "export",
    cls=Command,
    epilog=examples(
        "switchboard context export ada ada.jsonl",
        "switchboard context export ada - | jq 'select(.kind == \"turn\").content.request.text'",
    ),
)
@click.argument("ctx_id")
@click.argument("file", metavar="FILE", default="-")
@scan_option
@with_settings(*FIELDS)
def export(ctx_id: str, file: str, scan: int, settings: Settings) -> None:
    """Write all that is kept of a dialog to FILE, a line of JSON each. `-` is standard output.

    That is the context, its turns, the replies kept for repeated requests, its dead letters, and the references to its
    attachments, whose bytes are in the attachment store until they expire. What waits in queues is counted only. FILE
    must not exist; it appears when it is complete, readable by its owner only.
    """
    held, number = asyncio.run(_export(settings, context_id(ctx_id), file, scan))
    print_line(f"{number} records written", err=True)
    _tell_rest(held, scan)
    if held.is_cut:
        raise click.exceptions.Exit(ExitCode.FAILED)


@click.command(
    "delete",
    cls=Command,
    epilog=examples(
        "switchboard context delete ada --dry-run",
        "switchboard context delete ada",
        "switchboard context delete ada --yes",
    ),
)
@click.argument("ctx_id")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@scan_option
@with_settings(*FIELDS)
def delete(ctx_id: str, yes: bool, dry_run: bool, scan: int, settings: Settings) -> None:
    """Delete everything kept of a dialog, its dead letters included. Its next message begins it anew.

    The ids of its requests are forgotten too: one that the broker delivers again becomes a turn again. Bytes of
    attachments are not deleted, for others may refer to the same ones: they expire. Where this is interrupted, by
    whatever, run it again.
    """
    ctx_id = context_id(ctx_id)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on: give --yes to delete")
    held = asyncio.run(_look(settings, ctx_id, scan))
    _show(held)
    if dry_run:
        print_line("nothing was changed")
    elif not yes:
        click.confirm(f"Delete all of this of namespace {settings.namespace!r}?", abort=True)
    if not dry_run:
        asyncio.run(_delete(settings, held, scan))
        print_line(f"context {ctx_id!r} deleted")
    _tell_rest(held, scan)
    if held.is_cut:
        raise click.exceptions.Exit(ExitCode.FAILED)


@asynccontextmanager
async def _found(settings: Settings, ctx_id: str, scan: int) -> AsyncIterator[tuple[ContextStore, Held]]:
    """The store, and what there is of the context. Raises `ClickException` where there is nothing."""
    refuse_memory(settings.redis_url, "redis_url")  # before a bar for the broker's part is shown
    async with opened_broker(settings) as broker, opened_store(settings) as store:
        held = await look(store, ctx_id)
        await _look_at_broker(held, broker, settings, scan)
        if not held:
            raise click.ClickException(f"there is no context {ctx_id!r} in namespace {settings.namespace!r}")
        yield store, held


async def _look_at_broker(held: Held, broker: Broker, settings: Settings, scan: int) -> None:
    if await broker.queue_state(settings.topology.dead) is not None:  # Before the first worker, there is none.
        with bar("dead letters") as tell:
            async with walking(broker, settings.topology, scan, tell) as walk:
                await find_letters(held, walk)
    await count_waiting(held, broker, settings.topology, await look_up_plan(broker, settings))


async def _export(settings: Settings, ctx_id: str, file: str, scan: int) -> tuple[Held, int]:
    async with _found(settings, ctx_id, scan) as (store, held):
        number = 0
        with new_file(file) as lines:
            async for record in export_records(store, held, settings.keys):
                lines.write(f"{json_line(record)}\n")
                number += 1
        return held, number


async def _look(settings: Settings, ctx_id: str, scan: int) -> Held:
    async with _found(settings, ctx_id, scan) as (store, held):
        async for _ in export_records(store, held, settings.keys):
            pass  # Read for the attachments they refer to.
        return held


async def _delete(settings: Settings, held: Held, scan: int) -> None:
    """Dead letters first: replayed, one would bring the context back."""
    async with opened_broker(settings) as broker, opened_store(settings) as store:
        if held.letters:
            # Those and no others: what has come meanwhile was not shown to anybody.
            only = {letter.digest for letter, _ in held.letters}
            async with walking(broker, settings.topology, scan) as walk:
                await drop(walk, only)
        await store.delete(held.ctx_id)


def _show(held: Held) -> None:
    counts: list[tuple[str, Any]] = [
        ("version", 0 if held.loaded is None else held.loaded.version),
        ("replies", len(held.outbox.replies)),
        ("dead letters", len(held.letters)),
        ("attachments", len(held.attachments)),
    ]
    print_line((f"context {held.ctx_id!r}", "bold"))
    for name, count in counts:
        print_line((f"{name:<13}", "bold"), str(count))
    if held.letters:
        print_letters([letter for letter, _ in held.letters])


def _tell_rest(held: Held, scan: int) -> None:
    """What neither command touches."""
    for queue, messages in held.waiting.items():
        if messages:
            print_line(
                ("! ", "yellow"),
                f"{messages} requests wait in queue {queue!r}, maybe of this context: run this again after them",
                err=True,
            )
    for reference in sorted(map(str, held.attachments)):
        print_line(("! ", "yellow"), f"{reference} stays until it expires (SWITCHBOARD_ATTACHMENTS_TTL)", err=True)
    if held.is_cut:
        print_line(
            ("! ", "yellow"),
            f"only the oldest {scan} dead letters were looked at, there are more: run this again with a higher --scan",
            err=True,
        )
