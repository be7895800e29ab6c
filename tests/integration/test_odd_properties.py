"""Properties no client library would send: one message of this kind must not end a connection, nor be changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import commands

from interfaces.brokers.properties import NAMES
from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import Reason
from interfaces.rabbitmq import RabbitMQMessengerInterface
from interfaces.topology import Topology, slot
from tests.integration.wire import Seen, Wire

NOT_UTF8 = RawText(b"\xff\xfe".decode(errors="surrogateescape"))
ODD: dict[str, dict[str, Any]] = {
    "a timestamp in microseconds": {"timestamp": RawTimestamp.of(1_763_882_972_000_000)},
    "a timestamp in milliseconds": {"timestamp": RawTimestamp.of(1_763_882_972_000)},
    "the largest timestamp": {"timestamp": RawTimestamp.of(2**64 - 1)},
    "a correlation id that is not UTF-8": {"correlation_id": NOT_UTF8},
    "a message id that is not UTF-8": {"message_id": NOT_UTF8},
    "a message id that is not UTF-8 and somebody to tell": {"message_id": NOT_UTF8, "reply_to": "amq.gen-nobody"},
    "a content type that is not UTF-8": {"content_type": NOT_UTF8},
    "a type that is not UTF-8": {"message_type": NOT_UTF8},
    "a header that is not UTF-8": {"headers": {"text": NOT_UTF8}},
    "a header with an odd timestamp": {"headers": {"nested": [{"when": RawTimestamp.of(2**63)}]}},
}


def as_published(properties: commands.Basic.Properties) -> bytes:
    """The properties as bytes, without the headers that a dead letter and a quorum queue add."""
    added = ("x-switchboard-", "x-delivery-count")
    headers = {key: value for key, value in (properties.headers or {}).items() if not key.startswith(added)}
    kept: dict[str, Any] = {name: getattr(properties, name) for name in NAMES}
    return commands.Basic.Properties(**(kept | {"headers": headers})).marshal()


@asynccontextmanager
async def echoing(amqp_url: str, topology: Topology) -> AsyncIterator[None]:
    """An interface on the namespace whose runner answers with what it was told."""

    async def echo(message: Any, ctx_id: Any = None, update_ctx_misc: Any = None) -> Context:
        return Context(id=ctx_id, responses={1: message})

    interface = RabbitMQMessengerInterface(amqp_url, topology=topology)
    connected = asyncio.create_task(interface.connect(echo))
    yield
    interface.stop()
    await connected


@pytest.mark.parametrize("odd", ODD.values(), ids=list(ODD))
async def test_a_message_with_odd_properties_leaves_unchanged_and_holds_back_nobody(
    amqp_url: str, topology: Topology, wire: Wire, client: BrokerClient, odd: dict[str, Any]
) -> None:
    published = commands.Basic.Properties(**({"message_id": "odd", "content_type": "text/plain"} | odd))
    async with echoing(amqp_url, topology):
        await wire.channel.basic_publish(
            b"\x00", exchange=topology.requests_exchange, routing_key=str(slot("ada")), properties=published
        )
        assert (await client.ask("good", "ada")).status == "ok"
    [dead] = await wire.take_all(topology.dead)
    assert dead.body == b"\x00"
    assert as_published(dead.properties) == as_published(published)
    assert reason_of(dead) in {Reason.BAD_CONTENT_TYPE, Reason.BAD_MESSAGE_ID}


async def test_headers_that_leave_no_room_for_the_reason_are_given_up_for_it(
    amqp_url: str, topology: Topology, wire: Wire, client: BrokerClient
) -> None:
    headers: dict[str, Any] = {"large": "x" * 130_900}
    published = commands.Basic.Properties(message_id="odd", content_type="text/plain", headers=headers)
    async with echoing(amqp_url, topology):
        await wire.channel.basic_publish(
            b"kept", exchange=topology.requests_exchange, routing_key=str(slot("ada")), properties=published
        )
        assert (await client.ask("good", "ada")).status == "ok"
    [dead] = await wire.take_all(topology.dead)
    assert (dead.body, dead.properties.message_id) == (b"kept", "odd")
    assert (dead.properties.headers or {})["x-switchboard-headers-dropped"] == 1
    assert reason_of(dead) == Reason.BAD_CONTENT_TYPE


def reason_of(dead: Seen) -> str:
    return str((dead.properties.headers or {})["x-switchboard-reason"])
