"""Keeps one message with odd properties from taking every worker down.

pamqp raises on a short string that is not UTF-8, on a timestamp beyond the year 9999 (one given in microseconds is
enough) and on headers nested a thousand deep. aiormq's reader ends with that error, and the connection with it; the
broker then delivers the same message to the next connection, for ever. So these decoders, and the encoders they need,
are replaced once, when the RabbitMQ broker is imported: what pamqp would raise on, or not give back as it was, goes out
again as the same value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from pamqp import decode, encode

LAST_SECOND = 0xFFFFFFFF
"""pamqp takes a larger timestamp for milliseconds and would publish it again as seconds."""

MAX_DEPTH: Final = 50
"""Levels of nested headers that are decoded; the stack holds some hundreds, and every level takes several frames."""

_encode_value = encode.encode_table_value


class RawTimestamp(datetime):
    """A timestamp whose number does not fit a date: near enough as a date, exact where it is encoded."""

    raw: int

    @classmethod
    def of(cls, raw: int) -> Self:
        """The timestamp for AMQP's unsigned 64 bit number."""
        made = cls(9999, 12, 31, tzinfo=UTC)
        made.raw = raw
        return made

    def timestamp(self) -> float:
        """The number itself; pamqp encodes the integer of this."""
        return self.raw


class RawText(str):
    """Text that is not UTF-8: its odd bytes are lone surrogates, and come out again as they were."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """The original bytes, however strictly they are asked for."""
        return str.encode(self, encoding, "surrogateescape" if errors == "strict" else errors)


@dataclass(frozen=True, slots=True)
class RawValue:
    """A header value nested too deep to look into: its bytes, the type before them included."""

    raw: bytes


def _timestamp(value: bytes) -> tuple[int, datetime]:
    raw = int.from_bytes(value[:8], "big")
    return 8, RawTimestamp.of(raw) if raw > LAST_SECOND else datetime.fromtimestamp(raw, UTC)


def short_string(value: bytes) -> tuple[int, str]:
    """Bytes taken, and the text of up to 255 bytes that `value` begins with."""
    end = 1 + value[0]
    try:
        return end, value[1:end].decode()
    except UnicodeDecodeError:
        return end, RawText(value[1:end].decode(errors="surrogateescape"))


def _long_string(value: bytes) -> tuple[int, str]:
    end = 4 + int.from_bytes(value[:4], "big")
    try:
        return end, value[4:end].decode()
    except UnicodeDecodeError:
        # pamqp would give bytes, which it then refuses to encode.
        return end, RawText(value[4:end].decode(errors="surrogateescape"))


def _header_table(value: bytes) -> tuple[int, dict[str, Any]]:
    end = 4 + int.from_bytes(value[:4], "big")
    return end, _table(value[4:end], depth=0)


def _table(entries: bytes, depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    while entries:
        key_length, key = short_string(entries)
        length, table[key] = _value(entries[key_length:], depth)
        entries = entries[key_length + length :]
    return table


def _array(entries: bytes, depth: int) -> list[Any]:
    array: list[Any] = []
    while entries:
        length, item = _value(entries, depth)
        array.append(item)
        entries = entries[length:]
    return array


def _value(entry: bytes, depth: int) -> tuple[int, Any]:
    kind = entry[:1]
    if kind not in (b"F", b"A"):
        return decode.embedded_value(entry)
    end = 5 + int.from_bytes(entry[1:5], "big")
    if depth == MAX_DEPTH:
        return end, RawValue(entry[:end])
    return end, _table(entry[5:end], depth + 1) if kind == b"F" else _array(entry[5:end], depth + 1)


def _encoded_table(value: Mapping[str, Any] | None) -> bytes:
    # pamqp's own cuts keys off at 128 bytes; the broker takes 255.
    entries = [encode.short_string(key) + encode.encode_table_value(item) for key, item in (value or {}).items()]
    encoded = b"".join(entries)
    return len(encoded).to_bytes(4, "big") + encoded


def _encoded_value(value: Any) -> bytes:
    if isinstance(value, RawValue):
        return value.raw
    if isinstance(value, float):
        # pamqp writes 32 bits, which is another number, or an OverflowError.
        return b"d" + encode.double(value)
    return _encode_value(value)


def install() -> None:
    """Replace the decoders and encoders. May be repeated."""
    decode.METHODS["shortstr"] = short_string
    decode.METHODS["timestamp"] = _timestamp
    decode.METHODS["table"] = _header_table
    decode.TABLE_MAPPING[b"S"] = _long_string
    decode.TABLE_MAPPING[b"T"] = _timestamp
    encode.METHODS["table"] = _encoded_table
    encode.field_table = _encoded_table
    encode.encode_table_value = _encoded_value
