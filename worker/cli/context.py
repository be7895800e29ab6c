"""`switchboard context`: what the store keeps of one dialog, to read; the group of all that deals with dialogs."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import click

from interfaces.context import Context
from interfaces.envelope import context_id
from worker import records
from worker.cli import context_data, context_import
from worker.cli.commands import KEY_FIELDS, STORE_FIELDS, Group, examples, with_settings
from worker.cli.output import json_option, print_json, print_line, said
from worker.cli.servers import opened_store
from worker.settings import Settings


@click.group("context", cls=Group)
def command() -> None:
    """Show, export or delete what is kept of a dialog, take dialogs over from Chatsky."""


command.add_command(context_data.export)
command.add_command(context_data.delete)
command.add_command(context_import.command)


@command.command(
    "show", epilog=examples("switchboard context show ada", "switchboard context show ada --turns 3 --json")
)
@click.argument("ctx_id")
@click.option("--turns", type=click.IntRange(min=1), default=10, show_default=True, help="Last turns shown.")
@json_option
@with_settings(*STORE_FIELDS, *KEY_FIELDS)
def show(ctx_id: str, turns: int, as_json: bool, settings: Settings) -> None:
    """Show a dialog: its turns, and what its bot remembers beside them."""
    context = asyncio.run(_read(settings, context_id(ctx_id), turns))
    if context is None:
        raise click.ClickException(f"there is no context {ctx_id!r} in namespace {settings.namespace!r}")
    ids = sorted(context.requests.keys() | context.responses.keys() | context.labels.keys())
    if as_json:
        print_json(_as_data(context, ids))
    else:
        _print(context, ids)


async def _read(settings: Settings, ctx_id: str, turns: int) -> Context | None:
    async with opened_store(settings) as store:
        loaded = await store.peek(ctx_id, turns)
    return None if loaded is None else records.read_context(ctx_id, loaded.version, loaded.main, loaded.turns)


def _as_data(context: Context, ids: list[int]) -> dict[str, Any]:
    turns = [
        {
            "turn": number,
            "request": context.requests.get(number),
            "label": context.labels.get(number),
            "response": context.responses.get(number),
        }
        for number in ids
    ]
    return {
        "id": context.id,
        "version": context.current_turn_id,
        "created_at": _iso(context.created_at),
        "updated_at": _iso(context.updated_at),
        "misc": context.misc,
        "framework_data": context.framework_data,
        "turns": turns,
    }


def _print(context: Context, ids: list[int]) -> None:
    data = _as_data(context, ids)
    for name in ("id", "version", "created_at", "updated_at"):
        print_line((f"{name:<11}", "bold"), str(data[name]))
    for name in ("misc", "framework_data"):
        if data[name]:
            print_line((name, "bold"))
            print_json(data[name])
    for number in ids:
        label = context.labels.get(number)
        place = f"  {label.flow_name}/{label.node_name}" if label else ""
        print_line()
        print_line((f"turn {number}", "bold"), (place, "dim"))
        if number in context.requests:
            print_line(("user  ", "cyan"), _indented(said(context.requests[number])))
        print_line(("bot   ", "green"), _indented(said(context.responses.get(number))))


def _indented(text: str) -> str:
    return text.replace("\n", "\n      ")


def _iso(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).replace(
        microsecond=nanoseconds // 1000 % 1_000_000
    )
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
