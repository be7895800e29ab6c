"""What is read the quick way is what the client library reads, however the bytes come in."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from aiormq import connection
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from interfaces.brokers import quick_reading, rabbitmq
from interfaces.brokers.mapping import amqp_errors
from interfaces.brokers.quick_reading import AT_A_TIME, CHUNK, CONSUMER, Messages, QuickReceiver
from interfaces.brokers.tolerant_decoding import RawText
from interfaces.brokers.whole_messages import Parts, parts_of
from interfaces.errors import BrokerUnavailable

quick_reading.install()

short = st.text(max_size=60)
names = st.text("abc.-_:019", max_size=127)
maybe = st.none() | short


def frames_of(message: Any, properties: Any, *parts: bytes, channel: int = 1) -> list[bytes]:
    header = ContentHeader(properties=properties, body_size=sum(map(len, parts)))
    return [frame.marshal(each, channel) for each in (message, header, *map(ContentBody, parts))]


def message(tag: int, *parts: bytes, channel: int = 1, consumer: str = CONSUMER) -> list[bytes]:
    properties = commands.Basic.Properties(message_id=f"m{tag}", delivery_mode=2)
    return frames_of(commands.Basic.Deliver(consumer, tag, False, "e", "k"), properties, *parts, channel=channel)


def started(reader: asyncio.StreamReader) -> QuickReceiver:
    receiver = QuickReceiver(reader)
    receiver.started = True
    return receiver


async def read(pieces: Sequence[bytes]) -> list[tuple[int, Any]]:
    """All that is given out for these bytes, which come one piece after another, with the channel of each."""
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for piece in pieces:
            reader.feed_data(piece)
            for _ in range(3):  # The receiver reads what is there, and waits for more.
                await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    found = [(channel, each) async for _, channel, each in started(reader)]
    await feeding
    return found


def tags(found: list[tuple[int, Any]]) -> list[Any]:
    """What was given out, messages by their tags."""
    return [[parts[-1] for parts in each] if type(each) is Messages else type(each) for _, each in found]


def by_library(frames: Sequence[bytes]) -> Parts:
    made: list[Any] = [frame.unmarshal(each)[2] for each in frames]
    body = b"".join(each.value for each in made[2:])
    channel: Any = None
    return parts_of(DeliveredMessage(delivery=made[0], header=made[1], body=body, channel=channel))


@given(
    st.integers(0, 2**63 - 1),
    st.booleans(),
    names,
    short,
    st.integers(1, 2047),
    st.fixed_dictionaries(dict.fromkeys(("content_type", "correlation_id", "reply_to", "message_id"), maybe)),
    st.fixed_dictionaries(dict.fromkeys(("content_encoding", "expiration", "message_type", "app_id"), maybe)),
    st.none() | st.integers(0, 2**33),
    st.none() | st.dictionaries(st.sampled_from(["k", "x-delivery-count"]), st.integers(0, 9)),
    st.binary(max_size=300),
)
def test_a_message_is_what_the_library_makes_of_it(
    tag: int,
    redelivered: bool,
    exchange: str,
    key: str,
    channel: int,
    usual: dict[str, Any],
    unusual: dict[str, Any],
    timestamp: int | None,
    headers: dict[str, Any] | None,
    body: bytes,
) -> None:
    properties = commands.Basic.Properties(
        timestamp=None if timestamp is None else datetime.fromtimestamp(timestamp, UTC),
        headers=headers,
        delivery_mode=2,
        priority=3,
        **usual,
        **unusual,
    )
    delivery = commands.Basic.Deliver(CONSUMER, tag, redelivered, exchange, key)
    frames = frames_of(delivery, properties, *([body] if body else []), channel=channel)
    assert asyncio.run(read([b"".join(frames)])) == [(channel, Messages([by_library(frames)]))]


@given(st.lists(st.integers(1, 200), max_size=12), st.booleans())
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int], byte_by_byte: bool) -> None:
    data = b"".join(
        [*message(1, b"one"), frame.marshal(Heartbeat(), 0), *message(2), *message(3, b"a", b"b"), *message(4, b"four")]
    )
    places = range(len(data)) if byte_by_byte else sorted(cuts)
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    given_out: list[Any] = []
    for each in tags(asyncio.run(read(pieces))):
        given_out += each if isinstance(each, list) else [each]
    several_frames = [commands.Basic.Deliver, ContentHeader, ContentBody, ContentBody]
    assert given_out == [1, Heartbeat, 2, *several_frames, 4]


async def test_messages_that_follow_each_other_are_given_out_together_but_not_too_many() -> None:
    many = [each for tag in range(AT_A_TIME + 2) for each in message(tag, b"x")]
    other_channel = [*message(50, b"y", channel=2), *message(51, b"y", channel=2)]
    found = await read([b"".join([*many, *other_channel, *message(60, b"z")])])
    assert tags(found) == [list(range(AT_A_TIME)), [AT_A_TIME, AT_A_TIME + 1], [50, 51], [60]]
    assert [channel for channel, _ in found] == [1, 1, 2, 1]


async def test_what_is_given_out_shows_nothing_of_what_was_said() -> None:
    [(_, found)] = await read([b"".join(message(1, b"a word"))])
    assert str(found) == repr(found) == "<1 messages>"


async def test_headers_that_cannot_be_read_are_the_librarys_to_refuse() -> None:
    properties = commands.Basic.Properties(headers={"k": "value"})
    frames = frames_of(commands.Basic.Deliver(CONSUMER, 1, False, "", ""), properties, b"x")
    frames[1] = frames[1].replace(b"\x01kS", b"\x01k?")
    with pytest.raises(InvalidFrameError):
        await read([b"".join(frames)])


async def test_frames_of_other_consumers_and_everything_else_are_the_librarys() -> None:
    others, ack = message(1, b"x", consumer="theirs"), frame.marshal(commands.Basic.Ack(7, multiple=True), 3)
    found = await read([b"".join([*others, ack, *message(2, b"y")])])
    assert tags(found) == [commands.Basic.Deliver, ContentHeader, ContentBody, commands.Basic.Ack, [2]]
    assert found[3][0] == 3
    assert (found[3][1].delivery_tag, found[3][1].multiple) == (7, True)


async def test_a_message_between_whose_frames_another_one_stands_is_given_out_frame_by_frame() -> None:
    first, second, third = message(1, b"x")
    found = await read([b"".join([first, frame.marshal(Heartbeat(), 0), second, third, *message(2, b"y")])])
    assert tags(found) == [commands.Basic.Deliver, Heartbeat, ContentHeader, ContentBody, [2]]


async def test_text_that_is_not_utf_8_is_left_to_the_tolerant_decoder() -> None:
    properties = commands.Basic.Properties(message_id=RawText(b"\xff".decode(errors="surrogateescape")))
    found = await read([b"".join(frames_of(commands.Basic.Deliver(CONSUMER, 1, False, "", ""), properties, b"x"))])
    assert tags(found) == [commands.Basic.Deliver, ContentHeader, ContentBody]
    assert isinstance(found[1][1].properties.message_id, RawText)


@pytest.mark.parametrize("at", range(3), ids=["delivery", "header", "body"])
async def test_a_frame_without_its_end_ends_the_connection(at: int) -> None:
    frames = message(1, b"x")
    frames[at] = frames[at][:-1] + b"\x00"
    with pytest.raises(InvalidFrameError):
        await read([b"".join(frames)])


async def test_a_frame_longer_than_what_is_read_at_once_comes_whole() -> None:
    body = bytes(3 * CHUNK)
    [(_, [parts])] = await read([b"".join(message(1, body))])
    assert parts[0] == body


async def test_a_stream_that_ends_within_a_frame_ends_the_connection_as_before() -> None:
    whole = b"".join(message(1, b"x"))
    for end in (len(whole) - 2, 3):
        with pytest.raises(AMQPConnectionError):
            await read([whole[:end]])
    assert await read([b""]) == []
    with pytest.raises(AMQPConnectionError):
        await read([whole, b"\x01"])


@pytest.mark.parametrize("cut", range(1, 20))
async def test_a_delivery_with_parts_that_do_not_fit_is_left_to_the_library(cut: int) -> None:
    first, *others = message(1, b"x")
    payload = first[7:-1][:-cut]
    spoilt = first[:3] + len(payload).to_bytes(4, "big") + payload + first[-1:]
    outcomes: list[Any] = []
    for look in (_by_receiver, _by_library):
        try:
            delivery = await look(b"".join([spoilt, *others]))
            outcomes.append([getattr(delivery, name, None) for name in delivery.attributes()])
        except Exception as error:  # noqa: BLE001 - whatever the library raises
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


async def _by_receiver(data: bytes) -> Any:
    return (await read([data]))[0][1]


async def _by_library(data: bytes) -> Any:
    try:
        return frame.unmarshal(data)[2]
    except PAMQPException as error:
        raise InvalidFrameError from error


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
    async def end_at_once() -> None:
        reader = asyncio.StreamReader()
        reader.feed_eof()
        await connection.FrameReceiver(reader).get_frame()

    async def connect() -> None:
        with amqp_errors("connecting"):
            raise StopAsyncIteration

    with pytest.raises(AMQPConnectionError, match="before it said anything"):
        asyncio.run(end_at_once())
    with pytest.raises(BrokerUnavailable):
        asyncio.run(connect())
