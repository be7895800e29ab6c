"""Whole messages out of what a socket has given, without an object for each of their frames.

pamqp makes four objects of a delivery, its header and its body, and looks up the type of every field. Here the bytes
of all three become what a `Delivery` is made of. What is not as usual (a body in several frames, text that is not
UTF-8, parts that are not exactly as long as their frame) is left to the library, which knows what is wrong with it.
Laid out as AMQP 0-9-1, 4.2.3 to 4.2.6, says. Used by `quick_reading`.
"""

from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from pamqp import commands, constants, decode
from pamqp.exceptions import PAMQPException

from interfaces.brokers import Properties
from interfaces.brokers.properties import CONTENT_HEADER, FRAME, NAMES, from_amqp, without_delivery_count

Parts = tuple[bytes, Properties, str, str, bool, int, int]
"""A `Delivery` but for its channel: body, properties, exchange, routing key, redelivered, delivery count, tag."""

_TAG: Final = Struct(">QB")
_HEADER: Final = Struct(FRAME.format + CONTENT_HEADER.format.lstrip(">"))
_AROUND: Final = FRAME.size + 1
"""Bytes of a frame around what it carries."""
_END: Final = constants.FRAME_END


def deliver_start(consumer_tag: str) -> bytes:
    """What the method of every delivery to a consumer begins with, in its frame."""
    tag = consumer_tag.encode()
    return commands.Basic.Deliver.index.to_bytes(4, "big") + bytes((len(tag),)) + tag


def read_message(data: bytes, place: int, header_at: int, channel: int) -> tuple[Parts | None, int]:
    """The message whose delivery goes on at `place` in `data`, and where it ends.

    :param place: behind what `deliver_start` gives.
    :param header_at: where the frame ends that it is in.

    Without a message the number says how far the data must reach to tell more; it is 0 where the library must look.
    """
    there = len(data)
    if there < header_at + _HEADER.size:
        return None, header_at + _HEADER.size
    kind, number, length, _, _, body_size, flags = _HEADER.unpack_from(data, header_at)
    body_at = header_at + _AROUND + length
    end = body_at + _AROUND + body_size if body_size else body_at
    if kind != constants.FRAME_HEADER or number != channel:
        return None, 0
    if there < body_at + (FRAME.size if body_size else 0):
        return None, body_at + (FRAME.size if body_size else 0)
    if body_size and FRAME.unpack_from(data, body_at) != (constants.FRAME_BODY, channel, body_size):
        return None, 0
    if there < end:
        return None, end
    try:
        tag, bits = _TAG.unpack_from(data, place)
        place += _TAG.size
        key_at = place + 1 + data[place]
        exchange, routing_key = data[place + 1 : key_at].decode(), data[key_at + 1 : header_at - 1].decode()
        if key_at + 1 + data[key_at] != header_at - 1:
            return None, 0
        properties = _properties(data, header_at + _HEADER.size, body_at - 1, flags)
    except (StructError, LookupError, ValueError, PAMQPException):
        return None, 0
    if properties is None or not data[header_at - 1] == data[body_at - 1] == data[end - 1] == _END:
        return None, 0
    body = data[body_at + FRAME.size : end - 1] if body_size else b""
    return (body, properties, exchange, routing_key, bits & 1 == 1, without_delivery_count(properties), tag), end


def parts_of(message: DeliveredMessage) -> Parts:
    """The same of a message that the library has read."""
    properties, delivery_count = from_amqp(message.header.properties)
    return (
        *(message.body, properties, message.exchange or "", message.routing_key or ""),
        *(bool(message.redelivered), delivery_count, message.delivery_tag or 0),
    )


def _properties(data: bytes, place: int, end: int, flags: int) -> Properties | None:
    """The properties between two places; `None` where they do not end there, or are others than a message has."""
    layout = _layout(flags)
    if layout is None:
        return None
    found: dict[str, Any] = {}
    for name, kind in layout:
        if kind == "shortstr":
            after = place + 1 + data[place]
            found[name] = data[place + 1 : after].decode()
            place = after
        elif kind == "octet":
            found[name] = data[place]
            place += 1
        else:
            length, found[name] = decode.METHODS[kind](data[place:end])
            place += length
    return Properties(**found) if place == end else None


@lru_cache(maxsize=256)
def _layout(flags: int) -> tuple[tuple[str, str], ...] | None:
    """Names and types of the properties that are there, in their order; `None` where one is not a message's."""
    known = commands.Basic.Properties.flags
    if flags & ~sum(known[name] for name in NAMES):
        return None
    return tuple((name, commands.Basic.Properties.amqp_type(name)) for name in known if flags & known[name])
