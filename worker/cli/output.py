"""What commands print: for people on a terminal, plain text elsewhere, JSON for scripts.

Whatever users or bots wrote passes `printable` first, so that it cannot steer the terminal of an operator. Colours and
boxes appear on a terminal only, and no colour where NO_COLOR is set.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import click
from pydantic_core import to_json
from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interfaces.attachments import DataAttachment, MediaGroup
from interfaces.cli import printable
from interfaces.messages import Message

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

_MORE_CONTROLS = re.compile(r"[\x7f-\x9f]")

Cell = tuple[str, str]
"""Text and style."""


def print_json(value: Any) -> None:
    """Print `value`, with pydantic models in it, as indented JSON."""
    click.echo(_escaped(to_json(value, indent=2)))


def json_line(value: Any) -> str:
    """`value` as one line of JSON."""
    return _escaped(to_json(value))


def _escaped(json: bytes) -> str:
    # JSON escapes the control characters below 0x20 by itself; a terminal obeys these as well.
    return _MORE_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.decode())


def print_line(*cells: Cell | str, err: bool = False) -> None:
    """Print one line of styled pieces. Long ones are left to the terminal to wrap, so that copying keeps them whole."""
    console = Console(stderr=err, highlight=False, markup=False, emoji=False)
    console.print(Text.assemble(*(_clean(cell) for cell in cells)), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns in `numbers` are aligned to the right."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        click.echo("\n".join(plain_table(columns, rows, numbers)))
        return
    table = Table(box=ROUNDED, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text.assemble(_clean(cell)) for cell in row))
    console.print(table)


def said(message: Message | None) -> str:
    """A message as text: what it says, and a short line for each attachment."""
    if message is None:
        return "(no answer)"
    lines = [] if message.text is None else [message.text]
    lines += [f"[{_attachment(attachment)}]" for attachment in message.attachments or []]
    return printable("\n".join(lines)) or "(empty)"


def _attachment(attachment: Any) -> str:
    kind = getattr(attachment, "chatsky_attachment_type", None) or "attachment"
    if isinstance(attachment, MediaGroup):
        return f"{kind}: {', '.join(_attachment(member) for member in attachment.group)}"
    if isinstance(attachment, DataAttachment):
        return f"{kind}: {attachment.source or attachment.id}"
    fields = attachment.model_dump(mode="json", exclude_none=True, exclude={"chatsky_attachment_type"})
    return f"{kind}: {to_json(fields).decode()}"


def _clean(cell: Cell | str) -> Cell:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return printable(text), style


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], numbers: Collection[str]) -> list[str]:
    """The lines of a table in plain text; the columns in `numbers` are aligned to the right."""
    lines = [list(columns), *([_clean(cell)[0] for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if column in numbers else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]
