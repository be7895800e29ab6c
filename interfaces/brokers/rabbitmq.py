"""RabbitMQ by aio-pika: two connections, one channel per consumer, publishes that always have a known outcome.

Plain connections, not aio-pika's robust ones: those restore channels and consumers by themselves, in an order that
cannot be put together with handing over a shard. Here a lost connection closes its channels, whoever needs one asks
again, and `shards` decides what is consumed. Messages are never requeued: only closing a channel returns them.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelClosed
from pamqp import commands

from interfaces.brokers import Channel, Delivery, Outgoing, QueueState, declare, quick_reading, tolerant_decoding
from interfaces.brokers.bounded import bounded
from interfaces.brokers.direct_delivery import deliver_directly
from interfaces.brokers.link import CLOSE_SECONDS, Link, close_channel
from interfaces.brokers.mapping import CONNECTION_LOST, amqp_errors, describe
from interfaces.brokers.publisher import Publisher
from interfaces.brokers.quick_reading import CONSUMER
from interfaces.brokers.tick_writes import acknowledge, can_write
from interfaces.brokers.whole_messages import Parts, parts_of
from interfaces.errors import BrokerRefused, BrokerUnavailable
from interfaces.telemetry import Telemetry
from interfaces.topology import GENERATIONS_AHEAD, Topology, reply_queue_arguments

logger = logging.getLogger(__name__)

ACK_SECONDS = 0.01
"""For so long acknowledgements gather: nearly all are one frame then, and one entry in the queue's replicated log,
where those of a tick are many (docs/decisions/0022). No reply waits for it."""

tolerant_decoding.install()
quick_reading.install()


class RabbitMQChannel:
    """One consumer on one queue; see `interfaces.brokers.Channel`."""

    def __init__(self, channel: AbstractChannel, queue: str, prefetch: int) -> None:
        self.queue = queue
        self.has_begun = False
        """Set once the broker has taken the consumer; a channel that it closes before is told by the attempt."""
        self.is_open = True
        """Whether acks still reach the broker. No property, as every turn asks for it many times."""
        self._channel = channel
        self._can_write = can_write(channel)
        self._prefetch = prefetch
        self._loop = asyncio.get_running_loop()
        self._unsettled: dict[int, float] = {}
        self._settled: list[int] = []
        """Tags that are to be acknowledged."""
        self._due: asyncio.TimerHandle | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        channel.closing.add_done_callback(self._on_closed)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        self._cancelled: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> Mapping[int, float]:
        """What is delivered and not yet acknowledged."""
        return self._unsettled

    async def wait_closed(self) -> None:
        """Wait until either side closed the channel."""
        await self._closed.wait()

    async def verify(self) -> bool:
        """One round trip on this channel. A stalled connection answers once its heartbeat has ended it: False."""
        with suppress(BrokerUnavailable, BrokerRefused), amqp_errors(f"verifying the consumer of {self.queue!r}"):
            # Of the methods that have an answer, this one changes nothing when it is repeated.
            await self._channel.basic_qos(prefetch_count=self._prefetch)
            return self.is_open
        return False

    async def ack(self, delivery: Delivery) -> None:
        """Settle; silent on a closed channel."""
        if self.is_open:
            if self._unsettled.pop(delivery.tag, None) is None:
                await self._acknowledge()  # Not outstanding: the broker shall say so, and closes the channel over it.
            self._settled.append(delivery.tag)
            if 2 * len(self._settled) >= self._prefetch:
                self._begin_acknowledging()  # The broker has little left that it may deliver.
            elif self._due is None:
                self._due = self._loop.call_later(ACK_SECONDS, self._begin_acknowledging)

    def _begin_acknowledging(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._acknowledging is None or self._acknowledging.done():
            self._acknowledging = self._loop.create_task(self._acknowledge(), name=f"acknowledge on {self.queue}")

    async def close(self) -> None:
        """Close the channel, which returns its unacknowledged deliveries to the head of the queue."""
        self._note_closed()
        try:
            with suppress(TimeoutError):
                await bounded(self._all_acknowledged(), CLOSE_SECONDS)
        finally:
            await close_channel(self._channel)

    async def _all_acknowledged(self) -> None:
        # A write that waits for room in the client library's queue would be overtaken by the closing of the channel.
        if self._acknowledging is not None and not self._acknowledging.done():
            await asyncio.wait({self._acknowledging})
        await self._acknowledge()

    async def _acknowledge(self) -> None:
        """Send the acknowledgements that have gathered. May be repeated."""
        with suppress(*CONNECTION_LOST):
            while self._settled:
                if self._can_write:
                    await acknowledge(self._channel, self._settled, self._unsettled)
                else:
                    await self._channel.basic_ack(self._settled.pop(0), wait=False)

    def delivered(self, parts: Parts) -> Delivery:
        """Note what the broker delivers."""
        delivery = Delivery(*parts, self)
        self._unsettled[delivery.tag] = self._loop.time()
        return delivery

    def _on_closed(self, closing: "asyncio.Future[Any]") -> None:
        error = None if closing.cancelled() else closing.exception()
        # Only what the broker says of this channel: a lost connection closes all, and is told by who makes it anew.
        if isinstance(error, ChannelClosed) and self.has_begun and self.is_open:
            logger.warning("the broker closed the channel that consumes %s: %s", self.queue, describe(error))
        self._note_closed()
        if self._due is not None:
            self._due.cancel()
        if self._acknowledging is not None:
            self._acknowledging.cancel()  # It may wait for a connection that writes nothing any more.

    def _note_closed(self) -> None:
        self.is_open = False
        self._closed.set()

    def _on_cancelled_by_broker(self, _: commands.Basic.Cancel) -> None:
        # The queue was deleted or lost its leader. The channel stays open without a consumer: close it, so that
        # whoever waits on it consumes anew. Not awaited here, because this runs inside the channel's own reader.
        self._cancelled = asyncio.create_task(self.close(), name=f"close cancelled consumer of {self.queue}")


class RabbitMQBroker:
    """The `Broker` seam on RabbitMQ 3.10 or newer; consuming and publishing on separate connections.

    One connection for both directions can deadlock under a broker alarm: the broker stops reading from connections that
    publish, and acks would be stuck behind the publishes.
    """

    def __init__(
        self,
        url: str,
        *,
        publish_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        telemetry = telemetry or Telemetry()
        self._consuming = Link(url, "consume", connect_timeout, telemetry)
        self._publishing = Link(url, "publish", connect_timeout, telemetry)
        self._publisher = Publisher(self._publishing, publish_timeout, telemetry)
        telemetry.servers["rabbitmq"] = lambda: self._consuming.is_up and self._publishing.is_up
        self._declared: set[Topology] = set()

    async def open(self) -> None:
        """Connect both ways once."""
        await self._consuming.get()
        await self._publishing.get()

    async def close(self) -> None:
        """Close both connections."""
        await asyncio.gather(self._consuming.close(), self._publishing.close())

    async def apply(self, topology: Topology) -> None:
        """Declare `topology`; see `interfaces.brokers.declare`."""
        connection = await self._publishing.get()
        with amqp_errors("declaring the topology"):
            is_known = topology in self._declared
            await declare.declare(connection, topology, is_known=is_known, look_ahead=GENERATIONS_AHEAD)
            await declare.bind_slots(connection, topology)
        self._declared.add(topology)

    async def declare(self, topology: Topology) -> None:
        """Declare `topology` without its slots; see `interfaces.brokers.declare`."""
        connection = await self._publishing.get()
        with amqp_errors("declaring the topology"):
            await declare.declare(connection, topology, is_known=topology in self._declared)
        self._declared.add(topology)

    async def move_slots(self, slots: Collection[int], previous: Topology, current: Topology) -> None:
        """Move slots to the next generation; see `interfaces.brokers.Broker`."""
        await declare.move_slots(await self._publishing.get(), slots, previous, current)

    async def publish(self, message: Outgoing) -> None:
        """Publish with a confirm; see `interfaces.brokers.Broker`."""
        await self._publisher.publish(message)

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` on a channel of its own."""
        return await self._consume(queue, prefetch, deliver)

    async def consume_alone(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` on a channel that holds a lock: a queue of this connection alone, gone with its consumer.

        Quorum queues do not know exclusive consumers, and an argument of a queue cannot be added later.
        """
        return await self._consume(queue, prefetch, deliver, lock=f"{queue}.taken")

    async def _consume(
        self, queue: str, prefetch: int, deliver: Callable[[Delivery], None], lock: str | None = None
    ) -> Channel:
        connection = await self._consuming.get()
        async with AsyncExitStack() as undoing:
            with amqp_errors(f"consuming queue {queue!r}"):
                raw = await declare.raw_channel(connection)
                channel = RabbitMQChannel(raw, queue, prefetch)
                # Left open by a caller that was cancelled, it would keep what it gets and the queue's one active place.
                undoing.push_async_callback(channel.close)

                def take(parts: Parts) -> None:
                    deliver(channel.delivered(parts))

                async def take_in_a_task(message: DeliveredMessage) -> None:
                    take(parts_of(message))

                is_direct = deliver_directly(raw, take)
                await raw.basic_qos(prefetch_count=prefetch)
                if lock is not None:
                    await raw.queue_declare(lock, exclusive=True, auto_delete=True)
                    await raw.basic_consume(lock, _ignore)
                if is_direct:
                    await raw.basic_consume(queue, _ignore, consumer_tag=CONSUMER)
                else:
                    await raw.basic_consume(queue, take_in_a_task)
            channel.has_begun = True
            undoing.pop_all()
        return channel

    async def queue_state(self, queue: str) -> QueueState | None:
        """Passive declare."""
        connection = await self._publishing.get()
        with amqp_errors(f"asking for queue {queue!r}"):
            found = await declare.find_queue(connection, queue)
        return None if found is None else QueueState(found.message_count or 0, found.consumer_count or 0)

    async def declare_reply_queue(
        self, name: str, expires: timedelta, bindings: Sequence[tuple[str, str]] = (), *, replicated: bool = False
    ) -> None:
        """Declare a reply queue."""
        connection = await self._publishing.get()
        arguments = reply_queue_arguments(expires, replicated=replicated)
        await declare.declare_reply_queue(connection, name, arguments, bindings)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue; RabbitMQ answers the same where it does not exist."""
        connection = await self._publishing.get()
        with amqp_errors(f"deleting queue {name!r}"):
            channel = await declare.raw_channel(connection)
            await channel.queue_delete(name)
            await channel.close()


async def _ignore(message: DeliveredMessage) -> None:
    """Nobody has anything to say to a lock."""
