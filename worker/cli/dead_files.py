"""`switchboard dead export` and `import`: dead letters as lines of JSON in a file, and back into their queue."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

from interfaces.brokers import Broker
from interfaces.errors import ExitCode, HeadersTooLarge, SwitchboardError
from interfaces.topology import Topology
from worker.cli.commands import BROKER_FIELDS, examples, with_settings
from worker.cli.dead_filters import Filter, with_filter
from worker.cli.dead_walks import bar, opened_walk, scan_option, tell_cut
from worker.cli.output import print_line
from worker.dead_letters import buried_again, read_dead_letter
from worker.dead_lines import read_line, write_line
from worker.settings import Settings

SHOWN = 20
"""Refused lines that are named."""


@click.command(
    "export",
    epilog=examples(
        "switchboard dead export dead.jsonl",
        "switchboard dead export bad.jsonl --reason bad-shape",
        "switchboard dead export - | jq .about.reason",
    ),
)
@click.argument("file", metavar="FILE")
@with_filter
@scan_option
@with_settings(*BROKER_FIELDS)
def export(file: str, wanted: Filter, scan: int, settings: Settings) -> None:
    """Write dead letters to FILE, a line of JSON each, and leave them where they are. `-` is standard output.

    FILE must not exist; it appears when it is complete, readable by its owner only. Where there were more than could be
    looked at, the exit code is 1.
    """
    with new_file(file) as lines:
        number, is_cut = asyncio.run(_export(settings, wanted, scan, lines))
    print_line(f"{number} dead letters written", err=True)
    tell_cut(is_cut, scan)
    if is_cut:
        raise click.exceptions.Exit(ExitCode.FAILED)


@dataclass(slots=True)
class Imported:
    """What became of the lines of a file."""

    line: int = 0
    """The last one looked at."""
    published: int = 0
    there: int = 0
    refused: list[str] = field(default_factory=list)


@click.command(
    "import",
    epilog=examples("switchboard dead import dead.jsonl", "switchboard dead import dead.jsonl --dry-run"),
)
@click.argument("file", metavar="FILE", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Only check the file, and count what would be published.")
@scan_option
@with_settings(*BROKER_FIELDS)
def import_lines(file: IO[bytes], dry_run: bool, scan: int, settings: Settings) -> None:
    """Publish the lines of FILE as dead letters again. `-` is standard input.

    One whose request is among the dead letters already is left out, so where this is interrupted, run it again.
    """
    done = Imported()
    try:
        is_cut = asyncio.run(_import(settings, file, dry_run, scan, done))
    except (KeyboardInterrupt, SwitchboardError):
        print_line(("! ", "yellow"), f"{done.published} published, then stopped at line {done.line}", err=True)
        raise
    verb = "would be published" if dry_run else "published"
    print_line(f"dead letters: {done.published} {verb}, {done.there} were there already, {len(done.refused)} refused")
    for refused in done.refused[:SHOWN]:
        print_line(("! ", "yellow"), refused, err=True)
    if len(done.refused) > SHOWN:
        print_line(("! ", "yellow"), f"and {len(done.refused) - SHOWN} more", err=True)
    if is_cut:
        print_line(("! ", "yellow"), f"more than {scan} were there: some may be there twice now", err=True)
    if done.refused:
        raise click.exceptions.Exit(ExitCode.FAILED)


@contextmanager
def new_file(name: str) -> Iterator[IO[str]]:
    """A file that is there once all is written and safe, and not before."""
    if name == "-":
        yield sys.stdout
        return
    file, unfinished = Path(name), Path(f"{name}.part")
    if file.exists():
        raise click.UsageError(f"{name} exists: it may be all that is left of other dead letters. Give another name")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as lines:
            yield lines
            lines.flush()
            os.fsync(descriptor)
        unfinished.rename(file)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


async def _export(settings: Settings, wanted: Filter, scan: int, lines: IO[str]) -> tuple[int, bool]:
    number = 0
    async with opened_walk(settings, scan) as (_, walk):
        async for delivery in walk:
            letter = read_dead_letter(delivery)
            if wanted.matches(letter):
                lines.write(f"{write_line(delivery, letter)}\n")
                number += 1
        return number, walk.is_cut


async def _import(settings: Settings, file: IO[bytes], dry_run: bool, scan: int, done: Imported) -> bool:
    async with opened_walk(settings, scan, has_bar=False) as (broker, walk):
        known = {read_dead_letter(delivery).identity async for delivery in walk}
        total = sum(1 for _ in file) if file.seekable() else 0
        if file.seekable():
            file.seek(0)
        with bar("lines") as tell:
            # One after the other, in the order of the file: it is the order that a replay keeps.
            for done.line, line in enumerate(file, start=1):
                tell(done.line, max(total, done.line))
                if line.strip():
                    await _import_line(line, known, None if dry_run else broker, settings.topology, done)
        return walk.is_cut


async def _import_line(
    line: bytes, known: set[tuple[str | None, str]], broker: Broker | None, topology: Topology, done: Imported
) -> None:
    try:
        letter = buried_again(topology, read_line(line))
        identity = read_dead_letter(letter).identity
        if identity in known:
            done.there += 1
            return
        if broker is not None:
            await broker.publish(letter)
    except (ValueError, HeadersTooLarge) as error:
        done.refused.append(f"line {done.line}: {error}")
        return
    known.add(identity)
    done.published += 1
