"""Dead letters as people read them. All of it was written by strangers, so all of it is made printable here."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import click
from pydantic_core import from_json, to_json
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interfaces.brokers import Delivery, Properties
from interfaces.cli import printable
from interfaces.encryption import Keys
from interfaces.errors import DecryptionFailed
from interfaces.sealed_bodies import request_in_plain
from worker.cli.output import Cell, plain_table, print_line
from worker.dead_letters import DeadLetter, shown

PLAIN: Final = ("failed at", "reason", "context", "request", "worker", "tries", "size", "detail")
DETAIL: Final = 100
"""Characters of the detail in a line of plain text."""
BODY: Final = 20_000
"""Characters of a body that are shown."""


def print_letters(letters: Sequence[DeadLetter]) -> None:
    """A table: two lines each on a terminal, so that ids stay whole at 80 columns; one line each elsewhere."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        click.echo("\n".join(plain_table(PLAIN, [_plain_row(letter) for letter in letters], {"tries", "size"})))
        return
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), expand=True)
    table.add_column("failed at, worker", no_wrap=True, overflow="ellipsis", width=19)
    table.add_column("context, request", overflow="fold", min_width=16, max_width=38)
    table.add_column("reason, detail", no_wrap=True, overflow="ellipsis", ratio=1)
    for letter in letters:
        size = f"  {_size(letter.size)}"
        table.add_row(
            _two(_when(letter), f"{_worker(letter)}{_tries(letter)}"),
            _two(one_line(letter.ctx_id or "?"), one_line(letter.request_id or "(no id)"), "cyan"),
            _two(one_line(letter.reason), one_line(letter.detail), "yellow", size),
        )
    console.print(table)


def _two(first: str, second: str, style: str = "", note: str = "") -> Text:
    return Text.assemble((first, style), (note, "dim"), "\n", (second, "dim"))


def _plain_row(letter: DeadLetter) -> list[Cell | str]:
    texts = (letter.reason, letter.ctx_id or "?", letter.request_id or "(no id)")
    tries = "" if letter.attempts is None else str(letter.attempts)
    detail = one_line(letter.detail)
    short = detail if len(detail) <= DETAIL else f"{detail[: DETAIL - 1]}…"
    return [_when(letter), *map(one_line, texts), _worker(letter), tries, str(letter.size), short]


def one_line(text: str) -> str:
    """Any text as one line that steers no terminal."""
    return " ".join(printable(shown(text)).split())


def _when(letter: DeadLetter) -> str:
    at = letter.failed_at
    return "?" if at is None else at.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")


def _worker(letter: DeadLetter) -> str:
    name = one_line(letter.worker or "(broker)")
    return name.rpartition("-")[2] or name


def _tries(letter: DeadLetter) -> str:
    return "" if letter.attempts is None else f", {letter.attempts} {'try' if letter.attempts == 1 else 'tries'}"


def _size(size: int) -> str:
    return f"{size} B" if size < 10_000 else f"{size / 1024:.0f} KiB"


def print_letter(letter: DeadLetter, delivery: Delivery, keys: Keys | None = None) -> None:
    """Everything of one dead letter, its body too, in plain where `keys` can decrypt it."""
    for name, value in letter.as_data().items():
        print_line((f"{name:<12}", "bold"), "-" if value is None else one_line(str(value)))
    print_line(("properties", "bold"))
    for field in fields(Properties):
        value = getattr(delivery.properties, field.name)
        if value is not None and field.name != "headers":
            print_line((f"  {field.name:<18}", "cyan"), _value(value))
    print_line(("headers", "bold"))
    for key, value in (delivery.properties.headers or {}).items():
        print_line((f"  {one_line(key)}: ", "cyan"), _value(value))
    print_line(("body", "bold"))
    try:
        print_line(_body(request_in_plain(delivery.body, letter.request_id or "", keys)))
    except DecryptionFailed as error:
        print_line(_body(delivery.body))
        print_line(("! ", "yellow"), f"the body cannot be read: {error}", err=True)


def _value(value: Any) -> str:
    match value:
        case str():
            return one_line(value)
        case datetime():
            return value.isoformat()
        case Mapping() | list():
            return one_line(repr(value))
        case _:
            return one_line(str(value))


def _body(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text, note = body[:BODY].decode(errors="backslashreplace"), "\n(not UTF-8: odd bytes are escaped)"
    else:
        note = ""
        if len(text) <= BODY:
            text = _indented(text)
    cut = f"\n(the first {BODY} of {len(body)} bytes)" if len(text) > BODY else ""
    return f"{printable(text[:BODY])}{cut}{note}"


def _indented(text: str) -> str:
    try:
        return to_json(from_json(text), indent=2).decode()
    except ValueError:
        return text
