"""Requests no worker may run, each with the reason it must be given: what `test_bad_requests` publishes.

Every one carries all AMQP properties, so that one which is lost or changed on the way to the dead letters shows.
"""

import base64
import gzip
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interfaces.brokers import Outgoing, Properties
from interfaces.envelope import MAX_BODY_BYTES
from interfaces.errors import Reason
from interfaces.topology import Topology, slot

CTX = "around"
DEPTH = 10_000
URL = "https://example.org/picture.png"
RAW = bytearray(b"\0\xff")


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request and why it must be refused."""

    reason: Reason
    request: Outgoing

    @property
    def name(self) -> str | None:
        return self.request.properties.message_id


@dataclass(frozen=True, slots=True)
class Bomb:
    """Creates a file when it is unpickled."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class BadRequests:
    """Builds them for a topology. `reply_to` is a queue that may be replied to, `forbidden` one that may not."""

    def __init__(self, topology: Topology, reply_to: str, forbidden: str, bomb: Bomb) -> None:
        self._topology = topology
        self._reply_to = reply_to
        self._forbidden = forbidden
        self._pickle = base64.b64encode(pickle.dumps(bomb)).decode()

    def all(self) -> list[BadRequest]:
        """All of them; their message ids are their names."""
        return [
            *self._not_json(),
            *self._wrong_shape(),
            *self._wrong_context_or_route(),
            *self._pickled(),
            *self._local_files(),
            *self._wrong_properties(),
        ]

    def _not_json(self) -> Iterator[BadRequest]:
        deep = "[" * DEPTH + "]" * DEPTH
        yield self._bad(Reason.BAD_JSON, "no JSON", b"hello")
        yield self._bad(Reason.BAD_JSON, "empty body", b"")
        yield self._bad(Reason.BAD_JSON, "cut off", body()[:-1])
        yield self._bad(Reason.BAD_JSON, "not a number", b'{"version": 1, "ctx_id": "around", "message": NaN}')
        yield self._bad(
            Reason.BAD_ENCODING, "not UTF-8", body(message={"text": "grün"}, ascii_only=False, to="latin-1")
        )
        yield self._bad(Reason.BAD_ENCODING, "UTF-16", body(to="utf-16"))
        yield self._bad(Reason.BODY_TOO_LARGE, "one byte too many", body().ljust(MAX_BODY_BYTES + 1))
        yield self._bad(Reason.BODY_TOO_LARGE, "no JSON and too large", b"x" * 2 * MAX_BODY_BYTES)
        yield self._bad(Reason.TOO_DEEP, "10,000 arrays", deep.encode())
        yield self._bad(Reason.TOO_DEEP, "10,000 arrays in misc", body().replace(b'"hello"', deep.encode()))
        yield self._bad(Reason.TOO_DEEP, "10,000 objects", b'{"a":' * DEPTH + b"1" + b"}" * DEPTH)

    def _wrong_shape(self) -> Iterator[BadRequest]:
        for name, value in {"array": [1], "text": "text", "number": 1, "null": None}.items():
            yield self._bad(Reason.BAD_SHAPE, f"body is {name}", json.dumps(value).encode())
        shapes: dict[str, dict[str, Any]] = {
            "no message": {"message": ...},
            "no ctx_id": {"ctx_id": ...},
            "ctx_id is a number": {"ctx_id": 5},
            "unknown field": {"priority": 1},
            "message is a number": {"message": 5},
            "message is an array": {"message": ["hello"]},
            "text is a number": {"message": {"text": 5}},
            "attachments are text": {"message": {"attachments": "picture"}},
            "misc of message is an array": {"message": {"misc": []}},
            "update_ctx_misc is an array": {"update_ctx_misc": []},
            "interface with a dot": {"message": {"origin": {"interface": "a.b"}}},
            "interface too long": {"message": {"origin": {"interface": "a" * 51}}},
        }
        for name, fields in shapes.items():
            yield self._bad(Reason.BAD_SHAPE, name, body(**fields))
        for version in (..., None, 0, 2, "1", True):
            yield self._bad(Reason.BAD_VERSION, f"version {version!r}", body(version=version))

    def _wrong_context_or_route(self) -> Iterator[BadRequest]:
        for name, ctx_id in {"empty": "", "201 bytes": "x" * 201, "202 bytes of 101 letters": "é" * 101}.items():
            route = str(slot(ctx_id))
            yield self._bad(Reason.BAD_CONTEXT_ID, f"context id: {name}", body(ctx_id=ctx_id), routing_key=route)
        other = str((slot(CTX) + 1) % 1024)
        same_shard = str((slot(CTX) + self._topology.shards) % 1024)
        yield self._bad(Reason.MISROUTED, "routing key of another slot", body(), routing_key=other)
        yield self._bad(Reason.MISROUTED, "routing key of another slot, same shard", body(), routing_key=same_shard)

    def _pickled(self) -> Iterator[BadRequest]:
        pickled = {"__pickled_extra_fields__": ["secret"], "secret": self._pickle}
        picture = {"chatsky_attachment_type": "image", "source": URL}
        group = {"chatsky_attachment_type": "media_group", "group": [picture | pickled]}
        places: dict[str, dict[str, Any]] = {
            "message": {"message": {"text": "hello"} | pickled},
            "misc": {"message": {"misc": pickled}},
            "depths of misc": {"message": {"misc": {"a": [{"b": [pickled]}]}}},
            "annotations": {"message": {"annotations": pickled}},
            "attachment": {"message": {"attachments": [picture | pickled]}},
            "attachment in a group": {"message": {"attachments": [group]}},
            "origin": {"message": {"origin": pickled}},
            "message of origin": {"message": {"origin": {"message": self._pickle}}},
            "update_ctx_misc": {"update_ctx_misc": pickled},
        }
        for place, fields in places.items():
            yield self._bad(Reason.UNSAFE_PAYLOAD, f"pickle in {place}", body(**fields))

    def _local_files(self) -> Iterator[BadRequest]:
        sources = ["/etc/hostname", "etc/hostname", "file:///etc/hostname", "FILE:///etc/hostname", "C:\\hosts", ""]
        for source in sources:
            document = {"chatsky_attachment_type": "document", "source": source}
            message = {"attachments": [document]}
            yield self._bad(Reason.UNSAFE_PAYLOAD, f"file {source!r}", body(message=message))
        cached = {"chatsky_attachment_type": "image", "source": URL, "cached_filename": "/etc/hostname"}
        group = {"chatsky_attachment_type": "media_group", "group": [cached]}
        unknown = {"chatsky_attachment_type": "of tomorrow", "parts": [{"source": "/etc/hostname"}]}
        for name, attachment in {"cached": cached, "cached in a group": group, "in an unknown type": unknown}.items():
            yield self._bad(Reason.UNSAFE_PAYLOAD, f"file {name}", body(message={"attachments": [attachment]}))

    def _wrong_properties(self) -> Iterator[BadRequest]:
        for kind in ("text/plain", "application/x-python-serialize", "json"):
            yield self._bad(Reason.BAD_CONTENT_TYPE, f"content type {kind}", body(), content_type=kind)
        squeezed = gzip.compress(body())
        yield self._bad(Reason.BAD_ENCODING, "compressed", squeezed, content_encoding="gzip")
        yield self._bad(Reason.BAD_ENCODING, "compressed, it says", body(), content_encoding="deflate")
        yield self._bad(Reason.BAD_MESSAGE_ID, "no message_id", body(), message_id=None)
        for queue in (self._forbidden, f"{self._topology.namespace}.reply", self._topology.dead):
            yield self._bad(Reason.BAD_REPLY_TO, f"reply_to {queue}", body(), reply_to=queue)

    def _bad(
        self, reason: Reason, name: str, content: bytes, *, routing_key: str | None = None, **changes: Any
    ) -> BadRequest:
        properties = replace(full_properties(name, self._reply_to), **changes)
        route = str(slot(CTX)) if routing_key is None else routing_key
        return BadRequest(reason, Outgoing(self._topology.requests_exchange, route, content, properties))


def full_properties(name: str, reply_to: str) -> Properties:
    """Properties with nothing absent but those that travel as headers on a dead letter."""
    return Properties(
        content_type="application/json; charset=utf-8",
        content_encoding=None,
        headers={"case": name, "number": 5, "nested": {"list": [1, "two", True, 0.1], "at": at()}, "raw": RAW},
        delivery_mode=1,
        priority=3,
        correlation_id=f"correlation of {name}",
        reply_to=reply_to,
        message_id=name,
        timestamp=at(),
        message_type="a type",
        app_id="an app",
    )


def at() -> datetime:
    """A time to the second, all that AMQP carries."""
    return datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)


def body(*, ascii_only: bool = True, to: str = "utf-8", **changes: Any) -> bytes:
    """A request body of the contract with changed fields; `...` leaves one out."""
    fields = {"version": 1, "ctx_id": CTX, "message": {"text": "hi", "misc": {"said": "hello"}}} | changes
    kept = {name: value for name, value in fields.items() if value is not ...}
    return json.dumps(kept, ensure_ascii=ascii_only).encode(to)
