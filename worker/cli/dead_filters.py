"""Which dead letters a command is about: request ids, and filters that all have to hold."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from worker.dead_letters import DeadLetter, shown

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; empty means any."""

    ids: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    contexts: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()
    """Whole names, or what `switchboard status` shows of them."""
    since: datetime | None = None
    until: datetime | None = None

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return self != Filter()

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is wanted. One that does not tell what is asked for is not."""
        worker = shown(letter.worker or "")
        return (
            (not self.ids or shown(letter.request_id or "") in self.ids)
            and (not self.reasons or shown(letter.reason) in self.reasons)
            and (not self.contexts or letter.ctx_id in self.contexts)
            and (not self.workers or not self.workers.isdisjoint({worker, worker.rpartition("-")[2]}))
            and (self.since is None or (letter.failed_at is not None and letter.failed_at >= self.since))
            and (self.until is None or (letter.failed_at is not None and letter.failed_at < self.until))
        )

    def __str__(self) -> str:
        parts = [
            *(f"{name} {' or '.join(sorted(values))}" for name, values in self._sets() if values),
            *([f"since {self.since.isoformat()}"] if self.since is not None else []),
            *([f"until {self.until.isoformat()}"] if self.until is not None else []),
        ]
        return ", ".join(parts) or "all"

    def _sets(self) -> list[tuple[str, frozenset[str]]]:
        return [("id", self.ids), ("reason", self.reasons), ("context", self.contexts), ("worker", self.workers)]


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A time, or how long ago it was, as the time; UTC where no zone is given. Raises `BadParameter`."""
    if value is None:
        return None
    try:
        if (ago := _AGO.fullmatch(value)) is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        hint = "give a time as 2026-01-31T12:00, or an age as 90s, 30m, 2h, 7d"
        raise click.BadParameter(f"{value!r}: {hint}", ctx, param) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def with_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add arguments and options that say which dead letters; the function gets them as `wanted`."""

    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @click.option("--reason", "reasons", multiple=True, metavar="CODE", help="With this reason. May be repeated.")
    @click.option("--context", "contexts", multiple=True, metavar="CTX_ID", help="Of this context. May be repeated.")
    @click.option("--worker", "workers", multiple=True, metavar="NAME", help="By this worker. May be repeated.")
    @click.option(
        "--since",
        callback=moment,
        metavar="TIME",
        help="Given up then (UTC), or so long ago (2h, 7d), or later.",
    )
    @click.option("--until", callback=moment, metavar="TIME", help="Given up before then, or longer ago.")
    @functools.wraps(function)
    def call(
        *args: Any,
        ids: tuple[str, ...],
        reasons: tuple[str, ...],
        contexts: tuple[str, ...],
        workers: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        **kwargs: Any,
    ) -> Any:
        sets = frozenset(ids), frozenset(reasons), frozenset(contexts), frozenset(workers)
        return function(*args, wanted=Filter(*sets, since, until), **kwargs)

    return call
