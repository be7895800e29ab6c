"""`switchboard dead`: looks into the dead letters of a namespace, runs them again, drops them, keeps them in files."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from interfaces.brokers import Delivery
from interfaces.brokers.nodes import node_urls
from interfaces.errors import ExitCode, SwitchboardError
from worker.cli import dead_files
from worker.cli.commands import BROKER_FIELDS, KEY_FIELDS, Group, examples, with_settings
from worker.cli.dead_filters import Filter, with_filter
from worker.cli.dead_tables import one_line, print_letter, print_letters
from worker.cli.dead_walks import Found, opened_walk, scan_option, tell_cut
from worker.cli.output import json_option, print_json, print_line
from worker.dead_letters import DeadLetter, read_dead_letter
from worker.dead_lines import write_line
from worker.dead_queue import Replay, drop
from worker.settings import Settings

SHOWN = 50
"""Rows of a table, where nothing else is asked for."""

UNFINISHED = (
    "not finished: what is not replayed is still a dead letter, and so may be the last ones that are. Run the same "
    "command again: their ids keep them from running twice"
)

Picked = tuple[DeadLetter, Delivery]

everything_option = click.option("--all", "everything", is_flag=True, help="Every dead letter, with no filter.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


@click.group(
    "dead",
    cls=Group,
    epilog=examples(
        "switchboard dead list",
        "switchboard dead show order-1",
        "switchboard dead replay --reason handler-failed --since 2h",
    ),
)
def command() -> None:
    """List, show, replay, drop, export and import dead letters.

    Dead letters are requests that could not be processed, kept whole with the reason. Commands take request ids, or
    filters that all have to hold. Only one of them works at a time; another waits for ten seconds.
    """


command.add_command(dead_files.export)
command.add_command(dead_files.import_lines)


@command.command(
    "list",
    epilog=examples(
        "switchboard dead list --reason handler-failed --since 2h",
        "switchboard dead list --context ada --json | jq -r '.dead_letters[].request_id'",
    ),
)
@with_filter
@click.option("--limit", type=click.IntRange(min=1), help=f"Rows shown at most.  [default: {SHOWN}; all with --json]")
@scan_option
@json_option
@with_settings(*BROKER_FIELDS)
def list_letters(wanted: Filter, limit: int | None, scan: int, as_json: bool, settings: Settings) -> None:
    """List dead letters, the oldest first, without their bodies."""
    found = asyncio.run(_find(settings, wanted, scan))
    if as_json:
        print_json(found.as_data(limit))
    else:
        _print_found(found, settings, limit or SHOWN)


@command.command(
    "show",
    epilog=examples("switchboard dead show order-1", "switchboard dead show order-1 --json | jq -r .body | base64 -d"),
)
@with_filter
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Dead letters shown at most.")
@scan_option
@json_option
@with_settings(*BROKER_FIELDS, *KEY_FIELDS)
def show(wanted: Filter, limit: int, scan: int, as_json: bool, settings: Settings) -> None:
    """Show dead letters whole: what they tell, properties, headers and body.

    A body that is encrypted is shown in plain where its key is given. With --json each is a line as `switchboard dead
    export` writes it, the body as it is.
    """
    picked, more, is_cut = asyncio.run(_pick(settings, wanted, scan, limit))
    for number, (letter, delivery) in enumerate(picked):
        if as_json:
            click.echo(write_line(delivery, letter))
        else:
            if number:
                print_line()
            print_letter(letter, delivery, settings.keys)
    if more:
        print_line(("! ", "yellow"), f"{more} more match: see --limit", err=True)
    tell_cut(is_cut, scan)
    if not picked:
        raise click.ClickException(f"no dead letter of namespace {settings.namespace!r} matches: {wanted}")


@command.command(
    "replay",
    epilog=examples(
        "switchboard dead replay order-1",
        "switchboard dead replay --reason handler-failed --since 2h --dry-run",
        "switchboard dead replay --all",
    ),
)
@with_filter
@everything_option
@click.option(
    "--run-again", is_flag=True, help="Give each a new id, made of the old one: its turn runs even if it was committed."
)
@dry_run_option
@scan_option
@json_option
@with_settings(*BROKER_FIELDS, *KEY_FIELDS)
def replay(
    wanted: Filter, everything: bool, run_again: bool, dry_run: bool, scan: int, as_json: bool, settings: Settings
) -> None:
    """Publish the requests of dead letters again, each context's in their order, and remove the dead letters.

    A request keeps its id, so a turn that was committed is not repeated. A dead letter is removed once the broker has
    confirmed its request. Where this is interrupted, by whatever, run it again.
    """
    _need_selection(wanted, everything)
    if dry_run:
        _print_dry_run(asyncio.run(_find(settings, wanted, scan)), settings, as_json, "replayed")
        return
    replaying: Replay | None = None

    def begun(made: Replay) -> None:
        nonlocal replaying
        replaying = made

    try:
        is_cut = asyncio.run(_replay(settings, wanted, scan, run_again, begun))
    except (KeyboardInterrupt, SwitchboardError):
        if replaying is not None:
            print_line(("! ", "yellow"), f"{len(replaying.ids)} replayed, {UNFINISHED}", err=True)
        raise
    assert replaying is not None  # noqa: S101 - without it, there was an error
    _print_replayed(replaying, run_again, is_cut, as_json)
    if replaying.kept:
        raise click.exceptions.Exit(ExitCode.FAILED)


@command.command(
    "drop",
    epilog=examples("switchboard dead drop order-1", "switchboard dead drop --reason bad-json --until 30d --yes"),
)
@with_filter
@everything_option
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@dry_run_option
@scan_option
@json_option
@with_settings(*BROKER_FIELDS)
def drop_letters(
    wanted: Filter, everything: bool, yes: bool, dry_run: bool, scan: int, as_json: bool, settings: Settings
) -> None:
    """Delete dead letters for good. `switchboard dead export` keeps them in a file."""
    _need_selection(wanted, everything)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on: give --yes to drop")
    found = asyncio.run(_find(settings, wanted, scan))
    if dry_run:
        _print_dry_run(found, settings, as_json, "dropped")
        return
    if found.letters and not yes:
        _print_found(found, settings, SHOWN)
        click.confirm(f"Drop {_count(len(found.letters))} for good?", abort=True)
    dropped = asyncio.run(_drop(settings, found.letters, scan)) if found.letters else 0
    if as_json:
        print_json({"dropped": dropped, "more": found.is_cut})
    else:
        print_line(f"{_count(dropped)} dropped")
        tell_cut(found.is_cut, scan)


def _need_selection(wanted: Filter, everything: bool) -> None:
    if not wanted and not everything:
        raise click.UsageError("say which: request ids, filters such as --reason or --since, or --all")
    if wanted and everything:
        raise click.UsageError("--all goes with no filter and no ids")


async def _find(settings: Settings, wanted: Filter, scan: int) -> Found:
    async with opened_walk(settings, scan) as (_, walk):
        letters = [letter async for delivery in walk if wanted.matches(letter := read_dead_letter(delivery))]
        return Found(letters, walk.total, walk.seen, walk.is_cut)


async def _pick(settings: Settings, wanted: Filter, scan: int, limit: int) -> tuple[list[Picked], int, bool]:
    """The first matches whole, how many more there are, and whether there may be others behind."""
    picked: list[Picked] = []
    more = 0
    async with opened_walk(settings, scan) as (_, walk):
        async for delivery in walk:
            letter = read_dead_letter(delivery)
            if wanted.matches(letter):
                if len(picked) < limit:
                    picked.append((letter, delivery))
                else:
                    more += 1
        return picked, more, walk.is_cut


async def _replay(
    settings: Settings, wanted: Filter, scan: int, run_again: bool, begun: Callable[[Replay], None]
) -> bool:
    user = unquote(urlsplit(node_urls(settings.amqp_url.get_secret_value())[0]).username or "guest")
    async with opened_walk(settings, scan) as (broker, walk):
        replaying = Replay(
            broker, settings.topology, wanted.matches, user=user, run_again=run_again, keys=settings.keys
        )
        begun(replaying)
        await replaying.run(walk)
        return walk.is_cut


async def _drop(settings: Settings, letters: list[DeadLetter], scan: int) -> int:
    """Drop those and no other: what has come meanwhile was not shown to anybody."""
    only = {letter.digest for letter in letters}
    async with opened_walk(settings, scan) as (_, walk):
        return await drop(walk, only)


def _print_found(found: Found, settings: Settings, limit: int) -> None:
    if found.letters:
        print_letters(found.letters[:limit])
    print_line(
        f"{_count(len(found.letters))} of {found.total} in namespace {settings.namespace!r}"
        + (f", the oldest {limit} are shown: see --limit" if len(found.letters) > limit else "")
    )
    tell_cut(found.is_cut, found.seen)


def _print_dry_run(found: Found, settings: Settings, as_json: bool, done: str) -> None:
    kept = [letter for letter in found.letters if letter.obstacle is not None] if done == "replayed" else []
    if as_json:
        print_json({"dry_run": True, **found.as_data(None)})
        return
    _print_found(found, settings, SHOWN)
    print_line(f"{_count(len(found.letters) - len(kept))} would be {done}; nothing was changed")
    _tell_kept(kept)


def _print_replayed(replaying: Replay, run_again: bool, is_cut: bool, as_json: bool) -> None:
    if as_json:
        data: dict[str, Any] = {
            "replayed": [{"request_id": old, "new_id": new} for old, new in replaying.ids],
            "kept": [letter.as_data() | {"why": letter.obstacle} for letter in replaying.kept],
            "more": is_cut,
        }
        click.echo(json.dumps(data, indent=2))
        return
    print_line(f"{_count(len(replaying.ids))} replayed" + (", to run again under new ids:" if run_again else ""))
    for old, new in replaying.ids[:SHOWN] if run_again else ():
        print_line(f"  {one_line(old)} is now {new}")
    _tell_kept(replaying.kept)
    tell_cut(is_cut, None)


def _tell_kept(kept: list[DeadLetter]) -> None:
    for why in sorted({str(letter.obstacle) for letter in kept}):
        number = sum(letter.obstacle == why for letter in kept)
        print_line(("! ", "yellow"), f"{_count(number)} cannot be replayed: {why}", err=True)


def _count(number: int) -> str:
    return f"{number} dead {'letter' if number == 1 else 'letters'}"
