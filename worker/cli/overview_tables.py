"""The overview as tables: with colours and boxes on a terminal, aligned text elsewhere. Only `status` uses it.

Names of workers and hosts come from Redis, so all of it passes `printable`.
"""

from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from interfaces.cli import printable
from worker.cli.output import Cell, plain_table
from worker.cli.overview import Overview, Shard
from worker.members import Member

WORKERS = ("worker", "process", "version", "up", "owns", "waits", "held", "oldest", "turns", "turns/s")
SHARDS = ("shard", "owner", "standby", "ready", "held", "oldest", "state")
NUMBERS = frozenset({"up", "owns", "waits", "held", "oldest", "turns", "turns/s", "ready"})
ALARM, NOTICE = "bold red", "yellow"
STYLES = {"missing": ALARM, "no consumer": ALARM, "no owner": NOTICE, "changing hands": NOTICE, "": "green"}


def rich_tables(overview: Overview) -> list[RenderableType]:
    """A headline, the workers, the shards."""
    parts: list[RenderableType] = [Text.assemble(*_headline(overview))]
    for columns, rows in (WORKERS, _worker_rows(overview)), (SHARDS, _shard_rows(overview)):
        table = Table(box=SIMPLE_HEAD, header_style="bold", padding=0)  # fits 80 columns
        for column in columns:
            table.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text.assemble(cell) for cell in row))
        parts.append(table)
    return parts


def plain_text(overview: Overview) -> str:
    """The same for a pipe or a file."""
    headline = "".join(cell if isinstance(cell, str) else cell[0] for cell in _headline(overview))
    workers = plain_table(WORKERS, _worker_rows(overview), NUMBERS)
    return "\n".join([headline, "", *workers, "", *plain_table(SHARDS, _shard_rows(overview), NUMBERS)])


def _headline(overview: Overview) -> list[Cell | str]:
    dead = overview.dead.messages if overview.dead is not None else 0
    faulty = [shard for shard in overview.shards if shard.fault in ("missing", "no consumer")]
    cells: list[Cell | str] = [
        (f"namespace {overview.namespace!r}", "bold"),
        f": {overview.plan}, {len(overview.members)} workers, {overview.rate:.1f} turns/s, {overview.ready} ready, "
        f"{overview.unsettled} held, ",
        (f"{dead} dead letters", "yellow" if dead else ""),
    ]
    if faulty:
        cells.append((f", {len(faulty)} of {len(overview.shards)} shards without service", "bold red"))
    return cells


def _worker_rows(overview: Overview) -> list[list[Cell]]:
    return [_worker_row(name, member, overview.at) for name, member in overview.members.items()]


def _worker_row(name: str, member: Member, now: datetime) -> list[Cell]:
    waits = len(set(member.subscribed) - set(member.consuming))
    up = "" if member.started_at is None else _duration((now - member.started_at).total_seconds())
    process = f"{member.host}:{member.pid}" if member.pid else ""
    oldest = _seconds(max(member.oldest.values(), default=None))
    counts = (str(len(member.consuming)), str(waits), str(sum(member.unsettled.values())))
    texts = [_short(name), process, member.version, up, *counts, oldest, str(member.turns), f"{member.rate:.1f}"]
    return [(printable(text), "") for text in texts]


def _shard_rows(overview: Overview) -> list[list[Cell]]:
    return [_shard_row(shard) for shard in overview.shards]


def _shard_row(shard: Shard) -> list[Cell]:
    owners, standbys = (", ".join(map(_short, names)) for names in (shard.owners, shard.standbys))
    ready = "-" if shard.state is None else str(shard.state.messages)
    name = shard.queue.partition(".requests.")[2] or shard.queue
    cells = [(text, "") for text in (name, owners, standbys, ready, str(shard.unsettled), _seconds(shard.oldest))]
    return [(printable(text), style) for text, style in [*cells, (shard.fault or "ok", STYLES[shard.fault])]]


def _short(name: str) -> str:
    """The end of a worker's name, which is the part that differs."""
    return name.rpartition("-")[2] or name


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    return f"{minutes} min" if minutes < 180 else f"{minutes // 60} h"
