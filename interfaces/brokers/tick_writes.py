"""Publishes of one tick of the event loop as one write, and acknowledgements, for many times less than one by one.

aiormq spends a lock, two futures and a system call on every publish, and a call on every acknowledgement. Here what a
tick has to say goes out together, and the books in which aiormq finds confirms and returns are kept for it; so do
acknowledgements, whenever their channel wants. Those books are attributes without an underscore, but not documented:
all use of them is in this module, `can_write` looks whether they are as expected, and where they are not, whoever asks
publishes by `basic_publish` and acknowledges by `basic_ack` (docs/decisions/0022). Used by the publisher and by the
consumers' channels.
"""

import asyncio
from collections import deque
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.exceptions import ChannelInvalidStateError
from pamqp import commands, constants
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from interfaces.brokers import Outgoing
from interfaces.brokers.properties import FRAME, plain_header, to_amqp
from interfaces.telemetry import Telemetry

_BOOKS = ("confirmations", "delivery_tag", "message_id_delivery_tag", "max_content_size", "number", "write_queue")


def can_write(channel: AbstractChannel) -> bool:
    """Whether a channel keeps its books as this module expects."""
    return all(hasattr(channel, name) for name in _BOOKS)


async def _until_writable(channel: Any) -> None:
    """Return when a write can be handed over at once. Raises `ChannelInvalidStateError` where the channel is closing.

    A broker that has closed a channel, and been told that this is understood, closes the connection over whatever
    comes on it then: so nobody may wait between this look and the writing.
    """
    while channel.write_queue.full():
        await channel.write_queue.join()
    closing = getattr(channel, "_Channel__close_event", None)
    is_told = closing is not None and closing.is_set()
    if channel.is_closed or is_told or getattr(channel, "_close_exception", None) is not None:
        raise ChannelInvalidStateError(f"{channel!r} closed")


class _Publish:
    """A message on its way. It stands in aiormq's books where that puts a future, so it has what is used of one."""

    __slots__ = ("_books", "answer", "deadline", "frames", "member", "message_id", "tag")

    def __init__(
        self, books: dict[str, int], frames: bytes, message_id: str, deadline: float, answer: "asyncio.Future[None]"
    ) -> None:
        self._books = books
        self.frames = frames
        self.message_id = message_id
        self.deadline = deadline
        self.answer = answer
        self.tag = 0
        self.member: Any = None
        """What the span of its write links to, where there are traces."""

    def done(self) -> bool:
        return False  # Asked before an outcome is told: that clears the books, also where nobody waits for it any more.

    def set_result(self, _: object) -> None:
        self._settle()
        if not self.answer.done():
            self.answer.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        self._settle()
        if not self.answer.done():
            self.answer.set_exception(error)

    def _settle(self) -> None:
        if self._books.get(self.message_id) == self.tag:  # else it is that of a later one with the same id
            del self._books[self.message_id]


class TickPublishes:
    """Publishes on one channel, of which it is the only user.

    :param timeout: seconds that a publish may take until it is confirmed.
    :param telemetry: told how many go out together.
    """

    def __init__(self, channel: AbstractChannel, timeout: float, telemetry: Telemetry | None = None) -> None:
        telemetry = telemetry or Telemetry()
        self._sizes, self._tracing = telemetry.metrics.batch_size["write"], telemetry.tracing
        self._channel: Any = channel
        self._timeout = timeout
        self._next: list[_Publish] = []
        self._waiting: deque[_Publish] = deque()
        """In the order of their deadlines; those with an answer are dropped from the left."""
        self._limit: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        channel.closing.add_done_callback(self._on_closed)

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm. Raises what `basic_publish` raises, `TimeoutError` included."""
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        frames, message_id = self._frames(message)
        deadline = loop.time() + self._timeout
        books = self._channel.message_id_delivery_tag
        publish = _Publish(books, frames, message_id, deadline, loop.create_future())
        if self._tracing is not None:
            publish.member = self._tracing.member()
        self._next.append(publish)
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        self._waiting.append(publish)
        if self._limit is None:
            self._limit = loop.call_at(deadline, self._expire)
        if self._writing is None or self._writing.done():
            # It begins after this tick: everything published in between goes with it.
            self._writing = asyncio.create_task(self._write(), name="write publishes")
        try:
            await publish.answer
        finally:
            del publish  # An error has this frame in its traceback, and is in what `publish` has: a circle.

    def _frames(self, message: Outgoing) -> tuple[bytes, str]:
        """The frames of a message, and the id it has in the books."""
        number, body, message_id = self._channel.number, message.body, message.properties.message_id or ""
        header = plain_header(number, message.properties, len(body))
        if header is None:
            properties = to_amqp(message.properties)
            message_id = properties.message_id or ""
            header = marshal(ContentHeader(properties=properties, body_size=len(body)), number)
        size = self._channel.max_content_size if self._channel.max_content_size > 0 else len(body) or 1
        parts = [_publish_frame(number, message.exchange, message.routing_key, message.mandatory), header]
        for start in range(0, len(body), size):
            part = body[start : start + size]
            parts += (FRAME.pack(constants.FRAME_BODY, number, len(part)), part, constants.FRAME_END_CHAR)
        return b"".join(parts), message_id

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and (self._waiting[0].answer.done() or self._waiting[0].deadline <= loop.time()):
            overdue = self._waiting.popleft()
            if not overdue.answer.done():
                overdue.answer.set_exception(TimeoutError())  # A confirm that comes late still finds it in the books.
        self._limit = loop.call_at(self._waiting[0].deadline, self._expire) if self._waiting else None

    async def _write(self) -> None:
        try:
            # While one batch drains into the socket the next one gathers: back-pressure makes batches longer.
            while self._next:
                await _until_writable(self._channel)
                if self._tracing is None:
                    await self._written()
                else:
                    with self._tracing.batch("write", [publish.member for publish in self._next]):
                        await self._written()
        except ChannelInvalidStateError as error:
            self._fail_unsent(error)

    def _written(self) -> "asyncio.Future[None]":
        """Hand over what is next: done when the socket has taken it, or never where the connection is lost."""
        batch, self._next = self._next, []
        frames = []
        for publish in batch:
            if not publish.answer.done():  # else cancelled, or overdue, before anything was sent
                publish.tag = self._channel.delivery_tag = self._channel.delivery_tag + 1
                self._channel.confirmations[publish.tag] = publish
                self._channel.message_id_delivery_tag[publish.message_id] = publish.tag
                frames.append(publish.frames)
                publish.frames = b""
        self._sizes.observe(len(frames))
        drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        payload = b"".join(frames)
        self._channel.write_queue.put_nowait(ChannelFrame(payload, should_close=False, drain_future=drained))
        return drained

    def _on_closed(self, closing: "asyncio.Future[Any]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if error is None or isinstance(error, asyncio.CancelledError):
            error = ConnectionError("the channel was closed")
        self._error = error
        sent = [publish for publish in self._channel.confirmations.values() if isinstance(publish, _Publish)]
        self._channel.confirmations.clear()
        for publish in sent:
            publish.set_exception(error)
        for task in (self._writing, self._limit):
            if task is not None:
                task.cancel()
        self._fail_unsent(error)

    def _fail_unsent(self, error: BaseException) -> None:
        unsent, self._next = self._next, []
        for publish in unsent:
            publish.set_exception(error)


@lru_cache(maxsize=1024)
def _publish_frame(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    return marshal(commands.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory), number)


async def acknowledge(channel: Any, settled: list[int], unsettled: Collection[int]) -> None:
    """Acknowledge deliveries, and empty their list: those before the oldest of `unsettled` at once, the others each.

    `multiple` acknowledges all up to its tag, which must itself be unacknowledged: RabbitMQ closes the channel over any
    other.
    """
    await _until_writable(channel)
    tags = settled.copy()
    settled.clear()
    oldest = next(iter(unsettled), None)
    prefix = [tag for tag in tags if oldest is None or tag < oldest]
    acks = [commands.Basic.Ack(tag) for tag in tags if oldest is not None and tag > oldest]
    if prefix:
        acks.append(commands.Basic.Ack(max(prefix), multiple=True))
    payload = b"".join(marshal(ack, channel.number) for ack in acks)
    channel.write_queue.put_nowait(ChannelFrame(payload, should_close=False))
