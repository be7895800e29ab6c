"""AMQP properties to and from the client library's, bit for bit: a dead letter must leave as its request came.

aio-pika's own message class is not used for this: it fills in priorities and delivery modes that were absent, and
raises on an `expiration` it cannot read.
"""

from dataclasses import fields
from typing import Any, Final
from uuid import uuid4

from pamqp import commands

from interfaces.brokers import Properties

DELIVERY_COUNT: Final = "x-delivery-count"
"""Header a quorum queue adds to what it delivers again; no part of what was published."""

NAMES: Final = tuple(field.name for field in fields(Properties))


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
    known: dict[str, Any] = {name: getattr(properties, name) for name in NAMES}
    if not known["message_id"]:
        known["message_id"] = AbsentId(uuid4().hex)
    # pamqp's constructor refuses delivery modes that the broker takes from others.
    delivery_mode = known.pop("delivery_mode")
    encoded = commands.Basic.Properties(**known)
    encoded.delivery_mode = delivery_mode
    return encoded


def from_amqp(properties: commands.Basic.Properties) -> tuple[Properties, int]:
    """Properties as they were published, and how often the message was delivered before."""
    known: dict[str, Any] = {name: getattr(properties, name) for name in NAMES}
    headers = known["headers"]
    count = 0
    # A publisher may send a header of this name too; the broker replaces it only on what it delivers again.
    if headers is not None and type(headers.get(DELIVERY_COUNT)) is int:
        count = headers[DELIVERY_COUNT]
        known["headers"] = {key: value for key, value in headers.items() if key != DELIVERY_COUNT} or None
    return Properties(**known), count
