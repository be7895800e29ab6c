"""Dead letters as lines of JSON, for files: whatever AMQP can carry comes back as it was.

Read by people and by `jq` as well, so properties are plain JSON where JSON has the type, and an object with one key
that begins with `$` where it has not. A file may come from anywhere: `read_line` checks all it takes.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.brokers.properties import to_amqp
from interfaces.brokers.tolerant_decoding import LAST_SECOND, MAX_DEPTH, RawText, RawTimestamp, RawValue
from interfaces.envelope import DIRECT_REPLY
from worker.dead_letters import DeadLetter

VERSION: Final = 1
_NAMES: Final = frozenset(field.name for field in fields(Properties))
_NUMBERS: Final = ("delivery_mode", "priority")
_INTEGERS: Final = range(-(2**63), 2**63)


def write_line(message: Delivery | Outgoing, letter: DeadLetter) -> str:
    """A dead letter as one line of ASCII."""
    return json.dumps(as_record(message, letter))


def as_record(message: Delivery | Outgoing, letter: DeadLetter) -> dict[str, Any]:
    """What stands in its line. `about` is for readers; `read_line` takes everything from the rest."""
    properties = {name: getattr(message.properties, name) for name in sorted(_NAMES)}
    return {
        "version": VERSION,
        "about": letter.as_data(),
        "routing_key": _write(message.routing_key),
        "properties": {name: _write(value) for name, value in properties.items() if value is not None},
        "body": base64.b64encode(message.body).decode(),
    }


def read_line(line: str | bytes) -> Outgoing:
    """The dead letter of a line, for no exchange yet. Raises `ValueError` with what is wrong."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise ValueError(f"not an exported dead letter of version {VERSION}")
    given = record.get("properties")
    if not isinstance(given, dict) or not given.keys() <= _NAMES:
        raise ValueError(f"properties must be an object with some of: {', '.join(sorted(_NAMES))}")
    properties = Properties(**{name: _property(name, value) for name, value in given.items() if value is not None})
    key = _read(record.get("routing_key"))
    if not isinstance(key, str) or len(key.encode()) > 255:
        raise ValueError("routing_key must be text of at most 255 bytes")
    return Outgoing("", key, _bytes(record.get("body")), _encodable(properties))


def _property(name: str, value: Any) -> Any:
    read = _read(value)
    kind: type = {"headers": dict, "timestamp": datetime, **dict.fromkeys(_NUMBERS, int)}.get(name, str)
    if not isinstance(read, kind) or isinstance(read, bool):
        raise ValueError(f"property {name} is no {kind.__name__}")
    return read


def _encodable(properties: Properties) -> Properties:
    if properties.reply_to == DIRECT_REPLY:
        # The broker has put the real queue in its place in every message that went through it.
        raise ValueError(f"reply_to {DIRECT_REPLY!r} is only for who asks")
    try:
        to_amqp(properties).marshal()
    except Exception as error:
        # Limits of the format: text too long, a number too large. The encoder has a class of error for each.
        raise ValueError(f"properties that AMQP cannot carry: {error}") from error
    return properties


def _write(value: Any) -> Any:
    """A value of an AMQP property or header as JSON."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else {"$double": str(value)}
        case str():
            return value if _is_unicode(value) else {"$text": _base64(str.encode(value, errors="surrogateescape"))}
        case RawTimestamp():
            return {"$timestamp": value.raw}
        case datetime():
            return {"$timestamp": int(value.timestamp())}
        case Decimal():
            return {"$decimal": str(value)}
        case RawValue():
            return {"$amqp": _base64(value.raw)}
        case bytes() | bytearray():
            return {"$bytes": _base64(value)}
        case Mapping():
            if all(_is_unicode(key) and not key.startswith("$") for key in value):
                return {key: _write(item) for key, item in value.items()}
            return {"$table": [[_write(key), _write(item)] for key, item in value.items()]}
        case _:
            return [_write(item) for item in value]


def _read(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH + 1:
        raise ValueError(f"headers nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_read(item, depth + 1) for item in value]
    if isinstance(value, dict):
        tags = [key for key in value if key.startswith("$")]
        if tags and len(value) > 1:
            raise ValueError(f"{tags[0]} must stand alone")
        return _tagged(tags[0], value[tags[0]], depth) if tags else {key: _read(value[key], depth + 1) for key in value}
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INTEGERS:
        raise ValueError("an integer of more than 64 bits")
    if isinstance(value, str) and not _is_unicode(value):
        raise ValueError("text that is not Unicode: write its bytes as $text")
    return value


def _tagged(tag: str, value: Any, depth: int) -> Any:
    match tag, value:
        case "$double", "nan" | "inf" | "-inf":
            return float(value)
        case "$text", str():
            return RawText(_bytes(value).decode(errors="surrogateescape"))
        case "$timestamp", int() if not isinstance(value, bool) and 0 <= value < 2**64:
            return RawTimestamp.of(value) if value > LAST_SECOND else datetime.fromtimestamp(value, UTC)
        case "$decimal", str():
            return _decimal(value)
        case "$amqp", str():
            return RawValue(_bytes(value))
        case "$bytes", str():
            return bytearray(_bytes(value))
        case "$table", list():
            return dict(_entry(entry, depth) for entry in value)
    raise ValueError(f"{tag} cannot be read")


def _entry(entry: Any, depth: int) -> tuple[str, Any]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise ValueError("$table must be a list of [key, value]")
    key = _read(entry[0])
    if not isinstance(key, str):
        raise ValueError("a key of $table is no text")
    return key, _read(entry[1], depth + 1)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("$decimal is no number") from None


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("body and bytes must be base64")
    return base64.b64decode(text, validate=True)


def _base64(raw: bytes | bytearray) -> str:
    return base64.b64encode(raw).decode()


def _is_unicode(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True
