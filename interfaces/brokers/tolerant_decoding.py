"""Keeps one message with odd properties from taking every worker down.

pamqp raises on a short string that is not UTF-8 and on a timestamp beyond the year 9999 (one given in microseconds is
enough). aiormq's reader ends with that error, and the connection with it; the broker then delivers the same message to
the next connection, for ever. So these decoders are replaced, once, when the RabbitMQ broker is imported: what they
would raise on, or not give back as it was, they return in a form that encodes to the same bytes.
"""

from datetime import UTC, datetime
from typing import Self

from pamqp import decode

LAST_SECOND = 0xFFFFFFFF
"""pamqp takes a larger timestamp for milliseconds and would publish it again as seconds."""


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


def _timestamp(value: bytes) -> tuple[int, datetime]:
    raw = int.from_bytes(value[:8], "big")
    return 8, RawTimestamp.of(raw) if raw > LAST_SECOND else datetime.fromtimestamp(raw, UTC)


def _short_string(value: bytes) -> tuple[int, str]:
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


def install() -> None:
    """Replace the decoders. May be repeated."""
    decode.METHODS["shortstr"] = _short_string
    decode.METHODS["timestamp"] = _timestamp
    decode.TABLE_MAPPING[b"S"] = _long_string
    decode.TABLE_MAPPING[b"T"] = _timestamp
