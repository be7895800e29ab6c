"""The corpus of hostile inputs: one TOML file each in `tests/corpus`, with the outcome it must have beside it.

A file has `why` (one line), `expected` (a dead-letter reason, or "answered" with what must hold in `[answer]`), `body`,
and what is not usual of `routing_key`, `exchange` and `[properties]`. `broker` says what RabbitMQ itself does with it
("unroutable", "refused"), so that no worker sees it. Bodies and texts are pieces, so that a file stays small and may
hold any bytes: text, `{hex = ""}`, `{base64 = ""}`, `{repeat = "", times = 0}`, or a list of them. In a header also
`{bytes = PIECES}`, `{timestamp = 0}`, `{arrays = DEPTH}` and `{tables = DEPTH}`; NAMESPACE stands for the namespace.
Read by the tests of the decoder and of worker processes, and by `tests.fuzz`, which begins with these.
"""

import base64
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pamqp import commands

from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp
from interfaces.errors import Reason
from interfaces.topology import Topology, slot

CORPUS: Final = Path(__file__).parent / "corpus"
ANSWERED: Final = "answered"
NEIGHBOUR: Final = "around"
"""The context that most files are about, and that the good requests between them are in."""
BY_THE_BOT: Final = frozenset({Reason.HANDLER_FAILED, Reason.REPLY_INVALID})
"""Reasons for which a request must have been run."""


@dataclass(frozen=True, slots=True)
class Published:
    """An input as an AMQP client publishes it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: commands.Basic.Properties


@dataclass(frozen=True, slots=True)
class HostileInput:
    """One file of the corpus."""

    name: str
    why: str
    expected: str
    body: bytes
    broker: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_answered(self) -> bool:
        return self.expected == ANSWERED

    @property
    def passes_the_decoder(self) -> bool:
        return self.is_answered or self.expected in BY_THE_BOT

    @property
    def ctx_id(self) -> str:
        """Its context as a lenient reader finds it; that of its neighbours where there is none."""
        try:
            ctx_id = json.loads(self.body)["ctx_id"]
            ctx_id.encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return NEIGHBOUR
        return str(ctx_id)

    @property
    def is_told(self) -> bool:
        """Whether its sender hears of it on the queue of the test."""
        return self.broker is None and "reply_to" not in self.properties

    def published(self, topology: Topology, reply_to: str) -> Published:
        """As it is published in a namespace, `reply_to` the reply queue where the file names none."""
        usual = {
            "content_type": "application/json",
            "message_id": self.name,
            "correlation_id": f"correlation of {self.name}",
            "reply_to": reply_to,
            # What a worker only keeps, so that what is lost or changed on the way to the dead letters shows.
            "delivery_mode": 1,
            "priority": 3,
            "timestamp": datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC),
            "message_type": "a type",
            "app_id": "an app",
            "headers": {"number": 5, "nested": {"list": [1, "two", True, 0.1]}, "raw": bytearray(b"\0\xff")},
        }
        own = {name: _placed(value, topology) for name, value in self.properties.items() if name != "absent"}
        kept = {name: value for name, value in (usual | own).items() if name not in self.properties.get("absent", ())}
        exchange = topology.requests_exchange if self.exchange is None else _placed(self.exchange, topology)
        key = str(slot(self.ctx_id)) if self.routing_key is None else _placed(self.routing_key, topology)
        properties = commands.Basic.Properties()
        for name, value in kept.items():
            setattr(properties, name, value)  # Past the constructor, which refuses what a broker takes.
        return Published(exchange, key, self.body, properties)


def load_corpus() -> list[HostileInput]:
    """Every file, in the order of their names."""
    return [load(path) for path in sorted(CORPUS.glob("*.toml"))]


def load(path: Path) -> HostileInput:
    """One file. Raises `ValueError`, which names it, where it is not as described above."""
    try:
        written = tomllib.loads(path.read_text())
        body = pieces(written.pop("body"))
        properties = {name: _property(name, value) for name, value in written.pop("properties", {}).items()}
        key = written.pop("routing_key", None)
        found = HostileInput(
            path.stem, body=body, properties=properties, routing_key=None if key is None else text(key), **written
        )
        if not found.is_answered:
            Reason(found.expected)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error!r}") from error
    return found


def pieces(value: Any) -> bytes:
    """The bytes that text, a piece or a list of pieces stands for."""
    match value:
        case str():
            return value.encode()
        case list():
            return b"".join(pieces(piece) for piece in value)
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case {"base64": str(encoded)}:
            return base64.b64decode(encoded)
        case {"repeat": piece, "times": int(times)}:
            return pieces(piece) * times
    raise ValueError(f"{value!r} is no piece")


def text(value: Any) -> str:
    """The text that pieces stand for; not UTF-8, it is text as a decoder keeps it."""
    raw = pieces(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return RawText(raw.decode(errors="surrogateescape"))


def _property(name: str, value: Any) -> Any:
    if name == "headers":
        return {key: _header(item) for key, item in value.items()}
    if name == "timestamp":
        return RawTimestamp.of(value)
    return value if name == "absent" or isinstance(value, int) else text(value)


def _header(value: Any) -> Any:
    match value:
        case {"bytes": content}:
            return bytearray(pieces(content))
        case {"timestamp": int(number)}:
            return RawTimestamp.of(number)
        case {"arrays": int(depth)}:
            return _nested(depth, lambda inner: [inner])
        case {"tables": int(depth)}:
            return _nested(depth, lambda inner: {"a": inner})
        case {"hex": _} | {"base64": _} | {"repeat": _, "times": _}:
            return text(value)
        case dict():
            return {key: _header(item) for key, item in value.items()}
        case list():
            return [_header(item) for item in value]
    return value


def _nested(depth: int, around: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = around(value)
    return value


def _placed(value: Any, topology: Topology) -> Any:
    if isinstance(value, RawText) or not isinstance(value, str):
        return value
    return value.replace("NAMESPACE", topology.namespace)
