"""Frames read the quick way are those that the client library reads."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader

from interfaces.brokers import rabbitmq
from interfaces.brokers.mapping import amqp_errors
from interfaces.brokers.quick_reading import decoded
from interfaces.errors import BrokerUnavailable

assert rabbitmq  # installs it
short = st.text(max_size=60)
names = st.text("abc.-_:019", max_size=127)


@given(short, st.integers(0, 2**63 - 1), st.booleans(), names, short, st.integers(1, 2047))
def test_a_delivery_is_what_the_library_makes_of_it(
    consumer: str, tag: int, redelivered: bool, exchange: str, key: str, channel: int
) -> None:
    data = frame.marshal(commands.Basic.Deliver(consumer, tag, redelivered, exchange, key), channel)
    size, number, found = decoded(data)
    expected = frame.unmarshal(data)
    assert (size, number, type(found)) == (expected[0], expected[1], type(expected[2]))
    assert {name: getattr(found, name) for name in found.attributes()} == {
        name: getattr(expected[2], name) for name in found.attributes()
    }


maybe = st.none() | short
SEEN = ("class_id", "weight", "body_size")


@given(maybe, maybe, maybe, maybe, st.none() | st.integers(0, 2**33), st.none() | st.just({"k": 1}), st.integers(0, 9))
def test_a_header_is_what_the_library_makes_of_it(
    content_type: str | None,
    correlation_id: str | None,
    reply_to: str | None,
    message_id: str | None,
    timestamp: int | None,
    headers: dict[str, Any] | None,
    size: int,
) -> None:
    properties = commands.Basic.Properties(
        content_type=content_type,
        correlation_id=correlation_id,
        reply_to=reply_to,
        message_id=message_id,
        timestamp=None if timestamp is None else datetime.fromtimestamp(timestamp, UTC),
        headers=headers,
        delivery_mode=2,
    )
    data = frame.marshal(ContentHeader(properties=properties, body_size=size), 5)
    (_, channel, found), (_, _, expected) = decoded(data), frame.unmarshal(data)
    assert isinstance(expected, ContentHeader)
    assert channel == 5
    assert found.properties == expected.properties
    assert [getattr(found, name) for name in SEEN] == [getattr(expected, name) for name in SEEN]


def test_every_other_frame_is_left_to_the_library() -> None:
    data = frame.marshal(commands.Basic.Ack(7, multiple=True), 3)
    _, channel, found = decoded(data)
    assert (channel, found.delivery_tag, found.multiple) == (3, 7, True)


def test_frames_that_are_cut_or_spoilt_end_the_connection_as_before() -> None:
    async def read(data: bytes) -> object:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        receiver = FrameReceiver(reader)
        receiver.started = True
        return await receiver.get_frame()

    whole = frame.marshal(commands.Basic.Deliver("c", 1, False, "e", "k"), 1)
    with pytest.raises(AMQPConnectionError):
        asyncio.run(read(whole[:-2]))
    with pytest.raises(InvalidFrameError):
        asyncio.run(read(whole[:-1] + b"\x00"))
    with pytest.raises(StopAsyncIteration):
        asyncio.run(read(b""))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_that_hangs_up_at_once_is_unavailable(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def connect() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broker = rabbitmq.RabbitMQBroker(f"amqp://guest:guest@127.0.0.1:{port}/")
        try:
            for _ in range(50):
                with pytest.raises(BrokerUnavailable):
                    await broker.open()
        finally:
            await broker.close()
            server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(connect())


def test_an_end_before_the_first_frame_says_what_happened() -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_eof()
        await FrameReceiver(reader).get_frame()

    async def connect() -> None:
        with amqp_errors("connecting"):
            raise StopAsyncIteration

    with pytest.raises(AMQPConnectionError, match="before it said anything"):
        asyncio.run(read())
    with pytest.raises(BrokerUnavailable):
        asyncio.run(connect())


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_delivery_with_parts_that_do_not_fit_is_left_to_the_library(cut: int) -> None:
    data = frame.marshal(commands.Basic.Deliver("consumer", 1, False, "exchange", "key"), 1)
    payload = data[7:-1][:-cut]
    spoilt = data[:3] + len(payload).to_bytes(4, "big") + payload + data[-1:]
    outcomes = []
    for read in (decoded, frame.unmarshal):
        try:
            found: Any = read(spoilt)[2]
            outcomes.append([getattr(found, name, None) for name in found.attributes()])
        except Exception as error:  # noqa: BLE001 - whatever the library raises
            outcomes.append([type(error)])
    assert outcomes[0] == outcomes[1]
