"""Reads what comes on an open connection with less ceremony than aiormq and pamqp do.

aiormq reads each frame in three pieces under a lock, and pamqp looks up the type of every field of every frame. Here
the one method that reads frames is replaced, when the RabbitMQ broker is imported: the handshake, the end of the
stream, and every frame but a delivery and a header with the usual properties still go the library's way. Where the
library looks different, nothing is replaced (docs/decisions/0022).
"""

from asyncio import IncompleteReadError
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, Final

from aiormq import connection
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import commands, constants, decode, frame
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from interfaces.brokers.properties import CONTENT_HEADER, FRAME
from interfaces.brokers.tolerant_decoding import short_string

_TAG: Final = Struct(">QB")
_DELIVER: Final = commands.Basic.Deliver
_PROPERTIES: Final = commands.Basic.Properties

_original: Any = None


def decoded(data: bytes) -> Any:
    """What `pamqp.frame.unmarshal` gives for a whole frame."""
    kind, channel, size = FRAME.unpack_from(data)
    found: Any = None
    if len(data) == size + 8 and data[-1] == constants.FRAME_END:
        if kind == constants.FRAME_METHOD and data[7:11] == _DELIVER_INDEX:
            found = _delivery(data)
        elif kind == constants.FRAME_HEADER:
            found = _header(data)
    return frame.unmarshal(data) if found is None else (len(data), channel, found)


_DELIVER_INDEX: Final = Struct(">I").pack(_DELIVER.index)
_USUAL: Final = {
    name: _PROPERTIES.flags[name]
    for name in ("content_type", "delivery_mode", "correlation_id", "reply_to", "message_id", "timestamp")
}
"""Flags of the properties that requests and replies have, in the order in which AMQP writes them."""
_UNUSUAL: Final = ~sum(_USUAL.values())


def _header(data: bytes) -> ContentHeader | None:
    """A whole frame's header; `None` where it has other properties, or parts that are not exactly as long as it."""
    try:
        class_id, weight, body_size, flags = CONTENT_HEADER.unpack_from(data, 7)
        if flags & _UNUSUAL:
            return None
        properties, place = _PROPERTIES(), 7 + CONTENT_HEADER.size
        value: Any
        for name, flag in _USUAL.items():
            if not flags & flag:
                continue
            if name == "delivery_mode":
                length, value = 1, data[place]
            elif name == "timestamp":
                length, value = decode.METHODS[name](data[place : place + 8])
            else:
                length, value = short_string(data[place : place + 256])
            setattr(properties, name, value)
            place += length
    except (StructError, IndexError):
        return None
    if place != len(data) - 1:
        return None
    header = ContentHeader(weight, body_size, properties)
    header.class_id = class_id
    return header


def _delivery(data: bytes) -> commands.Basic.Deliver | None:
    """A whole frame's delivery; `None` where its parts are not exactly as long as it."""
    delivery = _DELIVER()
    try:
        length, delivery.consumer_tag = short_string(data[11:267])
        place = 11 + length
        delivery.delivery_tag, bits = _TAG.unpack_from(data, place)
        delivery.redelivered = bool(bits & 1)
        place += _TAG.size
        length, delivery.exchange = short_string(data[place : place + 256])
        place += length
        length, delivery.routing_key = short_string(data[place : place + 256])
    except (StructError, IndexError):
        return None
    return delivery if place + length == len(data) - 1 else None


async def _get_frame(receiver: Any) -> Any:
    if not receiver.started or receiver.reader.at_eof():
        try:
            return await _original(receiver)
        except StopAsyncIteration as error:
            if receiver.started:
                raise  # which ends the loop that asks for frames
            # The handshake lets it through as it is. Seen on uvloop, which tells of the end before the first read.
            raise AMQPConnectionError("the server closed the connection before it said anything") from error
    try:
        head = await receiver.reader.readexactly(FRAME.size)
        data = head + await receiver.reader.readexactly(FRAME.unpack(head)[2] + 1)
    except (IncompleteReadError, OSError) as error:
        raise AMQPConnectionError(f"the connection to the server was lost: {error!r}") from error
    try:
        return decoded(data)
    except PAMQPException as error:
        raise InvalidFrameError(str(error)) from error


def install() -> None:
    """Replace the reader's method. May be repeated."""
    global _original  # noqa: PLW0603 - the library's own, which stays in use
    receiver: Any = getattr(connection, "FrameReceiver", None)
    if _original is None and hasattr(receiver, "get_frame"):
        _original = receiver.get_frame
        receiver.get_frame = _get_frame
