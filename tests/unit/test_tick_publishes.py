"""Publishes of a tick against a channel whose socket, confirms and end are in the test's hands."""

import asyncio
from typing import Any

import pytest
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelInvalidStateError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.properties import plain_header, to_amqp
from interfaces.brokers.tick_writes import TickPublishes, acknowledge

TIMEOUT = 0.2


class StubChannel:
    """The books of aiormq's channel, and a queue that nobody writes from unless `drain` is called."""

    number = 1

    def __init__(self, room: int = 10, max_content_size: int = 1000) -> None:
        self.max_content_size = max_content_size
        self.confirmations: dict[int, Any] = {}
        self.message_id_delivery_tag: dict[str, int] = {}
        self.delivery_tag = 0
        self.write_queue: asyncio.Queue[ChannelFrame] = asyncio.Queue(room)
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_closed(self) -> bool:
        return self.closing.done()

    async def drain(self) -> bytes:
        frame = await self.write_queue.get()
        self.write_queue.task_done()
        frame.drain()
        return frame.payload

    def confirm(self, tag: int) -> None:
        self.confirmations.pop(tag).set_result(commands.Basic.Ack(tag))


def publishing(publishes: TickPublishes, name: str, body: bytes = b"") -> asyncio.Task[None]:
    message = Outgoing("", "queue", body, Properties(message_id=name))
    return asyncio.create_task(publishes.publish(message))


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_waits_behind_a_socket_that_takes_nothing_has_its_own_whole_time() -> None:
    channel = StubChannel()
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    first = publishing(publishes, "first")
    await asyncio.sleep(0.01)
    second = publishing(publishes, "second")
    await asyncio.sleep(TIMEOUT / 2)
    await cancelled(first, second)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10 * TIMEOUT):
            await publishing(publishes, "third")
    assert TIMEOUT * 0.9 < asyncio.get_running_loop().time() - began < 5 * TIMEOUT
    assert channel.delivery_tag == 1, "what was cancelled or overdue before it could be sent has no tag"


async def test_a_publish_cancelled_on_its_way_leaves_nothing_in_the_books() -> None:
    channel = StubChannel()
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    given_up, kept = publishing(publishes, "given up"), publishing(publishes, "kept")
    await channel.drain()
    await cancelled(given_up)
    channel.confirm(1)
    channel.confirm(2)
    await kept
    assert (channel.confirmations, channel.message_id_delivery_tag) == ({}, {})


async def test_two_with_one_id_do_not_clear_each_other_from_the_books() -> None:
    channel = StubChannel()
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    tasks = [publishing(publishes, "same"), publishing(publishes, "same")]
    await channel.drain()
    channel.confirm(1)
    assert channel.message_id_delivery_tag == {"same": 2}
    channel.confirm(2)
    await asyncio.gather(*tasks)
    assert channel.message_id_delivery_tag == {}


async def test_the_end_of_a_channel_fails_what_was_sent_what_was_not_and_what_comes_after() -> None:
    channel = StubChannel()
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    sent = publishing(publishes, "sent")
    await asyncio.sleep(0.01)
    unsent = publishing(publishes, "unsent")
    await asyncio.sleep(0)
    channel.closing.set_exception(ConnectionResetError("gone"))
    for task in (sent, unsent, publishing(publishes, "late")):
        with pytest.raises(ConnectionResetError):
            await task


async def test_tags_are_spent_only_once_there_is_room_to_write() -> None:
    channel = StubChannel(room=1)
    channel.write_queue.put_nowait(ChannelFrame(b"other", should_close=False))
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    task = publishing(publishes, "one")
    await asyncio.sleep(0.01)
    assert channel.delivery_tag == 0
    assert await channel.drain() == b"other"
    assert b"queue" in await channel.drain()
    channel.confirm(1)
    await task


@pytest.mark.parametrize(("limit", "frames"), [(1000, 3), (-8, 1)], ids=["limited", "frames of any size"])
async def test_a_body_is_cut_where_the_broker_limits_frames(limit: int, frames: int) -> None:
    channel = StubChannel(max_content_size=limit)
    publishes = TickPublishes(channel, TIMEOUT)  # type: ignore[arg-type]
    task = publishing(publishes, "large", b"x" * 2500)
    payload = await channel.drain()
    assert payload.count(b"\x03\x00\x01\x00\x00") == frames
    channel.confirm(1)
    await task


async def test_nothing_is_acknowledged_on_a_channel_that_is_closing() -> None:
    channel = StubChannel()
    channel.closing.set_result(None)
    settled = [1, 2]
    with pytest.raises(ChannelInvalidStateError):
        await acknowledge(channel, settled, [])
    assert channel.write_queue.empty()


texts = st.none() | st.text(max_size=80)


@given(texts, texts, texts, st.sampled_from([None, 1, 2, 9]), st.none() | st.text(max_size=3), st.integers(0, 2**40))
def test_a_plain_header_is_the_one_the_library_writes(
    content_type: str | None,
    correlation_id: str | None,
    message_id: str | None,
    delivery_mode: int | None,
    reply_to: str | None,
    size: int,
) -> None:
    properties = Properties(
        content_type=content_type,
        correlation_id=correlation_id,
        message_id=message_id,
        delivery_mode=delivery_mode,
        reply_to=reply_to,
    )
    is_plain = bool(content_type and correlation_id and message_id) and delivery_mode in (1, 2) and reply_to is None
    header = plain_header(7, properties, size)
    assert (header is not None) is (is_plain and max(map(_bytes, (content_type, correlation_id, message_id))) <= 255)
    if header is not None:
        assert header == marshal(ContentHeader(properties=to_amqp(properties), body_size=size), 7)


def _bytes(text: str | None) -> int:
    return len((text or "").encode())
