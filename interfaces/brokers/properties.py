"""AMQP properties to and from the client library's, bit for bit: a dead letter must leave as its request came.

aio-pika's own message class is not used for this: it fills in priorities and delivery modes that were absent, and
raises on an `expiration` it cannot read.
"""

from dataclasses import fields
from operator import attrgetter
from struct import Struct
from typing import Any, Final
from uuid import uuid4

from pamqp import commands, constants

from interfaces.brokers import Properties

DELIVERY_COUNT: Final = "x-delivery-count"
"""Header a quorum queue adds to what it delivers again; no part of what was published."""

FRAME: Final = Struct(">BHI")
"""What every frame begins with: its type, its channel, the bytes that follow before its end."""
CONTENT_HEADER: Final = Struct(">HHQH")
"""What a content header begins with: class, weight, bytes of the body, flags of the properties that are there."""

NAMES: Final = tuple(field.name for field in fields(Properties))
_all: Final = attrgetter(*NAMES)


class AbsentId(str):
    """A `message_id` for the client library's books alone.

    aiormq gives a message without an id one of its own, which would then be published. pamqp leaves out a property that
    equals the empty string; this one does, and is still unique where aiormq keeps it as a key.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "" or str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def to_amqp(properties: Properties) -> commands.Basic.Properties:
    """Properties to publish, absent ones absent."""
    known: dict[str, Any] = {name: value for name in NAMES if (value := getattr(properties, name)) is not None}
    if not known.get("message_id"):
        known["message_id"] = AbsentId(uuid4().hex)
    # pamqp's constructor refuses delivery modes that the broker takes from others.
    delivery_mode = known.pop("delivery_mode", None)
    encoded = commands.Basic.Properties(**known)
    encoded.delivery_mode = delivery_mode
    return encoded


def plain_header(channel: int, properties: Properties, body_size: int) -> bytes | None:
    """The header frame of a message with the properties that a reply has and no others; `None` for any other message.

    pamqp asks each of 14 properties for its type and its value. Laid out as AMQP 0-9-1, 2.3.5.2 and 4.2.6.1, says.
    """
    kind, mode = properties.content_type, properties.delivery_mode
    correlation_id, message_id = properties.correlation_id, properties.message_id
    if not (kind and correlation_id and message_id and mode in (1, 2)) or _beside_plain(properties) != _NOTHING_BESIDE:
        return None
    first, second, third = kind.encode(), correlation_id.encode(), message_id.encode()
    try:
        lengths = bytes((len(first), mode, len(second), len(third)))
    except ValueError:
        return None  # One is longer than the 255 bytes of a short string: pamqp says what is wrong.
    start = CONTENT_HEADER.pack(_BASIC, 0, body_size, _PLAIN_FLAGS)
    payload = b"".join((start, lengths[:1], first, lengths[1:3], second, lengths[3:], third))
    return FRAME.pack(constants.FRAME_HEADER, channel, len(payload)) + payload + constants.FRAME_END_CHAR


_BASIC: Final = commands.Basic.frame_id
_PLAIN: Final = ("content_type", "delivery_mode", "correlation_id", "message_id")
_PLAIN_FLAGS: Final = sum(commands.Basic.Properties.flags[name] for name in _PLAIN)
_beside_plain: Final = attrgetter(*(name for name in NAMES if name not in _PLAIN))
_NOTHING_BESIDE: Final = (None,) * (len(NAMES) - len(_PLAIN))


def from_amqp(properties: commands.Basic.Properties) -> tuple[Properties, int]:
    """Properties as they were published, and how often the message was delivered before."""
    known = Properties(*_all(properties))
    return known, without_delivery_count(known)


def without_delivery_count(properties: Properties) -> int:
    """Take out what a quorum queue adds to what it delivers again, and say how often that was."""
    headers = properties.headers
    # A publisher may send a header of this name too; the broker replaces it only on what it delivers again.
    if headers is None or type(count := headers.get(DELIVERY_COUNT)) is not int:
        return 0
    properties.headers = {key: value for key, value in headers.items() if key != DELIVERY_COUNT} or None
    return count
