"""Mutates the corpus: bodies as bytes and as JSON, property sets by name, routing keys mostly left right.

Reproducible from its seed. Every mutant begins from a file of the corpus, and half of the time from an accepted one,
because what is refused at its first byte reaches nothing else.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp
from interfaces.topology import Topology, slot
from tests.hostile_inputs import HostileInput, load_corpus

LARGEST_SEED: Final = 4000
"""Bytes: the large files of the corpus test limits, and would take the time of a thousand others."""
CONTEXTS: Final = 50
TEXTS: Final = ("", "a", "\0", "\n", "\x1b[2J", "\u202e", "{}", "%s", "#", "*", "../..", "é" * 100, "x" * 255, "🎉")
NUMBERS: Final = (0, -1, 1, 2**31, 2**53, 2**63, 10**30, 0.5, 1e308, -0.0, 5e-324)
KEYS: Final = (
    "version", "ctx_id", "message", "update_ctx_misc", "text", "attachments", "annotations", "misc", "origin",
    "interface", "chatsky_attachment_type", "source", "id", "group", "cached_filename", "use_cache", "options",
    "longitude", "latitude", "self", "__class__", "__pickled_extra_fields__", "",
)  # fmt: skip
TAGS: Final = ("image", "location", "poll", "media_group", "invoice", "contact", "callback_query", "of tomorrow", 5)
SCRAPS: Final = (
    b"\0",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\\ud800",
    b'"',
    b"{",
    b"}",
    b"[" * 150,
    b"1e999",
    b"NaN",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A request to publish; `seed` is the file it began from."""

    seed: str
    request: Outgoing


class Mutator:
    """Makes mutants for a namespace; `reply_to` is a queue that may be replied to."""

    def __init__(self, seed: int, topology: Topology, reply_to: str) -> None:
        self._random = random.Random(seed)
        self._topology = topology
        corpus = [hostile for hostile in load_corpus() if len(hostile.body) <= LARGEST_SEED and not hostile.broker]
        self._refused = [hostile for hostile in corpus if not hostile.is_answered]
        self._accepted = [hostile for hostile in corpus if hostile.is_answered]
        self._values = [json.loads(hostile.body) for hostile in self._accepted]
        self._properties = {
            hostile.name: from_file(hostile, topology, reply_to) for hostile in [*self._refused, *self._accepted]
        }

    def mutant(self) -> Mutant:
        """The next one."""
        base = self._random.choice(self._accepted if self._random.random() < 0.7 else self._refused)
        properties = self._properties[base.name]
        for _ in range(self._random.choice((0, 0, 1, 1, 2, 4))):
            properties = self._with_odd_property(properties)
        body = self._body(base)
        request = Outgoing(self._topology.requests_exchange, self._route(body), body, properties)
        return Mutant(base.name, request)

    def _body(self, base: HostileInput) -> bytes:
        body = base.body
        if self._random.random() < 0.7:
            try:
                value = json.loads(body)
            except (ValueError, RecursionError):
                value = self._random.choice(self._values)
            for _ in range(self._random.randint(1, 4)):
                value = self._mutated(value, 0)
            if isinstance(value, dict) and "ctx_id" in value and self._random.random() < 0.8:
                value = value | {"ctx_id": f"fuzz-{self._random.randrange(CONTEXTS)}"}
            body = json.dumps(value, ensure_ascii=self._random.random() < 0.5).encode(errors="surrogatepass")
        if self._random.random() < 0.15:
            body = self._with_odd_bytes(body)
        return body

    def _with_odd_bytes(self, body: bytes) -> bytes:
        for _ in range(self._random.randint(1, 3)):
            start = self._random.randint(0, len(body))
            end = min(len(body), start + self._random.choice((0, 1, 1, 2, 8)))
            middle = self._random.choice(
                (b"", self._random.randbytes(1), self._random.choice(SCRAPS), body[start : start + 20] * 2)
            )
            body = body[:start] + middle + body[end:]
        return body

    def _mutated(self, value: Any, depth: int) -> Any:
        """`value` with one change somewhere in it."""
        if isinstance(value, dict) and value and self._random.random() < 0.85:
            key = "message" if depth == 0 and self._random.random() < 0.7 else self._random.choice(list(value))
            if key not in value:
                return value | {key: self._new_value(depth)}
            choice = self._random.random()
            if choice < 0.1:
                return {name: item for name, item in value.items() if name != key}
            if choice < 0.25:
                return value | {self._random.choice((*KEYS, *TEXTS)): self._new_value(depth)}
            return value | {key: self._mutated(value[key], depth + 1)}
        if isinstance(value, list) and value and self._random.random() < 0.8:
            place = self._random.randrange(len(value))
            return [*value[:place], self._mutated(value[place], depth + 1), *value[place + 1 :]]
        return self._new_value(depth)

    def _new_value(self, depth: int) -> Any:
        if depth > 6:
            return None
        makers: tuple[Callable[[], Any], ...] = (
            lambda: self._random.choice(TEXTS),
            lambda: self._random.choice(NUMBERS),
            lambda: self._random.choice((None, True, False, [], {})),
            lambda: {self._random.choice(KEYS): self._new_value(depth + 1) for _ in range(2)},
            lambda: [self._new_value(depth + 1) for _ in range(self._random.randint(1, 3))],
            lambda: {"chatsky_attachment_type": self._random.choice(TAGS), "id": self._random.choice(TEXTS)},
            lambda: self._part_of(self._random.choice(self._values)),
        )
        return self._random.choice(makers)()

    def _part_of(self, value: Any) -> Any:
        while self._random.random() < 0.6 and isinstance(value, dict | list) and value:
            value = self._random.choice(list(value.values()) if isinstance(value, dict) else value)
        return value

    def _with_odd_property(self, properties: Properties) -> Properties:
        name = self._random.choice(
            ("content_type", "content_encoding", "message_id", "correlation_id", "reply_to", "headers", "timestamp",
             "priority", "delivery_mode", "message_type", "expiration")
        )  # fmt: skip
        other = self._properties[self._random.choice(self._accepted).name]
        value = self._random.choice((None, getattr(other, name), self._odd(name)))
        return replace(properties, **{name: value})

    def _odd(self, name: str) -> Any:
        if name == "headers":
            return {self._random.choice(("x-switchboard-reason", "x-death", "a", "")): self._new_value(3)}
        if name == "timestamp":
            return RawTimestamp.of(self._random.getrandbits(64))
        if name in ("priority", "delivery_mode"):
            return self._random.randrange(256)
        if name == "expiration":
            return self._random.choice(("0", "60000", "soon", "-1", "²"))
        raw = self._random.choice((*(text.encode() for text in TEXTS), self._random.randbytes(4)))[:255]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return RawText(raw.decode(errors="surrogateescape"))

    def _route(self, body: bytes) -> str:
        if self._random.random() < 0.05:
            return str(self._random.randrange(1024))
        return str(slot(HostileInput("", "", "", body).ctx_id))


def from_file(hostile: HostileInput, topology: Topology, reply_to: str) -> Properties:
    """The properties of a file of the corpus, for a broker that takes ours."""
    published = hostile.published(topology, reply_to).properties
    names = {name: getattr(published, name) for name in Properties.__slots__}
    return Properties(**names)
