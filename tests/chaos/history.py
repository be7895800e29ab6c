"""What was seen from outside while servers and workers died: sent and confirmed requests, and replies.

One JSON object a line, written as it happens. The time is the machine's monotonic clock in nanoseconds, so the records
of several processes have one order. `traffic` writes histories, `checker` judges them.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Sent:
    """A request is about to be published for the first time."""

    request_id: str
    ctx_id: str
    at: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The publisher knows that the broker has the request. One that was given up has no such record."""

    request_id: str
    at: int


@dataclass(frozen=True, slots=True)
class Replied:
    """A reply came out of the replies exchange."""

    request_id: str
    """What it carries as `correlation_id`."""
    message_id: str
    body: str
    at: int


Event: TypeAlias = Sent | Confirmed | Replied

KINDS: Final[Mapping[str, type[Sent] | type[Confirmed] | type[Replied]]] = {
    "sent": Sent,
    "confirmed": Confirmed,
    "replied": Replied,
}
NAMES: Final = {kind: name for name, kind in KINDS.items()}


def now() -> int:
    """The time of an event."""
    return time.monotonic_ns()


class Recorder:
    """Appends events to a file. Use it as a context manager; a line is whole or absent when the process dies."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self.counts = dict.fromkeys(KINDS, 0)
        """Events written, by kind."""

    def write(self, event: Event) -> None:
        """Append one event."""
        name = NAMES[type(event)]
        self.counts[name] += 1
        self._file.write(json.dumps({"event": name, **asdict(event)}, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(paths: Iterable[Path]) -> list[Event]:
    """The events of several files in the order of their times. Raises `ValueError` for a line that is none."""
    return sorted((event for path in paths for event in _read_file(path)), key=lambda event: event.at)


def _read_file(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                fields: dict[str, Any] = json.loads(line)
                yield KINDS[fields.pop("event")](**fields)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number}: no event: {line[:200]!r}") from error
