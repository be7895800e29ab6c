"""RabbitMQ by aio-pika: two connections, one channel per consumer, publishes that always have a known outcome.

Plain connections, not aio-pika's robust ones: those restore channels and consumers by themselves, in an order that
cannot be put together with handing over a shard. Here a lost connection closes its channels, whoever needs one asks
again, and `shards` decides what is consumed. Messages are never requeued: only closing a channel returns them.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import aio_pika
import yarl
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from interfaces.brokers import Channel, Delivery, Outgoing, QueueState, declare, tolerant_decoding
from interfaces.brokers.mapping import CONNECTION_LOST, amqp_errors
from interfaces.brokers.properties import from_amqp, to_amqp
from interfaces.errors import BrokerUnavailable, HeadersTooLarge, PublishTimeout, SwitchboardError, Unroutable
from interfaces.topology import Topology, reply_queue_arguments

tolerant_decoding.install()

HEARTBEAT_SECONDS = 10
"""Bounds how long a half-open connection goes unnoticed; the library's default of 60 s means minutes."""

CLOSE_SECONDS = 3.0

MAX_PROPERTIES_BYTES = 131_072 - 64
"""RabbitMQ's default `frame_max`, less the frame's own bytes: AMQP 0-9-1 puts all properties into one frame, and a
broker closes the connection over a larger one."""

PORTS = {"amqp": 5672, "amqps": 5671}


class RabbitMQChannel:
    """One consumer on one queue; see `interfaces.brokers.Channel`."""

    def __init__(self, channel: AbstractChannel, queue: str) -> None:
        self.queue = queue
        self._channel = channel
        self._closed = asyncio.Event()
        channel.closing.add_done_callback(lambda _: self._closed.set())
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled_by_broker)
        self._cancelled: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether acks still reach the broker."""
        return not self._closed.is_set()

    async def wait_closed(self) -> None:
        """Wait until either side closed the channel."""
        await self._closed.wait()

    async def ack(self, delivery: Delivery) -> None:
        """Settle; silent on a closed channel."""
        if self.is_open:
            with suppress(*CONNECTION_LOST):
                await self._channel.basic_ack(delivery.tag, wait=False)

    async def close(self) -> None:
        """Close the channel, which returns its unacknowledged deliveries to the head of the queue."""
        self._closed.set()
        await _close_channel(self._channel)

    def _on_cancelled_by_broker(self, _: commands.Basic.Cancel) -> None:
        # The queue was deleted or lost its leader. The channel stays open without a consumer: close it, so that
        # whoever waits on it consumes anew. Not awaited here, because this runs inside the channel's own reader.
        self._cancelled = asyncio.create_task(self.close(), name=f"close cancelled consumer of {self.queue}")


class _Link:
    """One connection, opened when somebody needs it and it is not there."""

    def __init__(self, url: str, purpose: str, connect_timeout: float) -> None:
        given = yarl.URL(url)
        defaults = {"heartbeat": str(HEARTBEAT_SECONDS), "name": f"switchboard {purpose}"}
        self._url = given.with_query(defaults | dict(given.query))
        self._doing = f"connecting to RabbitMQ at {given.host}:{given.port or PORTS.get(given.scheme, '')}"
        self._timeout = connect_timeout
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._ended = False

    async def get(self) -> AbstractConnection:
        """The open connection; one attempt to make it where there is none."""
        async with self._lock:
            if self._ended:
                raise BrokerUnavailable("this broker object is closed")
            if self._connection is None or _is_lost(self._connection):
                await self._drop()
                with amqp_errors(self._doing):
                    self._connection = await aio_pika.connect(self._url, timeout=self._timeout)
                declare.check_version(self._connection)
            return self._connection

    async def close(self) -> None:
        self._ended = True
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*CONNECTION_LOST, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await connection.close()


def _is_lost(connection: AbstractConnection) -> bool:
    # `connection.is_closed` only tells whether `close` was called on this side: a lost connection counts as open there.
    return connection.transport is None or connection.transport.connection.is_closed


class _PublishingChannel:
    """A channel with confirms and the number of publishes that wait for theirs."""

    def __init__(self, raw: AbstractChannel) -> None:
        self.raw = raw
        self.waiting = 0


class _Publisher:
    """The publishing channel, replaced after a publish that the broker refused or whose outcome it did not tell."""

    def __init__(self, link: _Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._current: _PublishingChannel | None = None

    async def publish(self, message: Outgoing) -> None:
        properties = to_amqp(message.properties)
        if message.properties.headers and (size := len(properties.marshal())) > MAX_PROPERTIES_BYTES:
            raise HeadersTooLarge(
                f"properties and headers have {size} bytes, at most {MAX_PROPERTIES_BYTES} fit a frame"
            )
        channel = await self._get()
        channel.waiting += 1
        try:
            with amqp_errors(f"publishing to {message.exchange or 'queue'} {message.routing_key!r}"):
                await self._publish_on(channel.raw, message, properties)
        except BrokerUnavailable as error:
            self._retire(channel)
            if _names_missing_exchange(error, message.exchange):
                raise Unroutable(f"{error}: no topology is declared there") from error
            raise
        finally:
            channel.waiting -= 1
            if channel is not self._current and channel.waiting == 0:
                await _close_channel(channel.raw)

    async def _publish_on(
        self, channel: AbstractChannel, message: Outgoing, properties: commands.Basic.Properties
    ) -> None:
        try:
            await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=properties,
                mandatory=message.mandatory,
                timeout=self._timeout,
            )
        except TimeoutError as error:
            where = f"{message.exchange or 'queue'} {message.routing_key!r}"
            raise PublishTimeout(f"publishing to {where}: no confirm within {self._timeout:g} s") from error

    async def _get(self) -> _PublishingChannel:
        async with self._lock:
            if self._current is None or self._current.raw.is_closed:
                connection = await self._link.get()
                with amqp_errors("opening a channel to publish"):
                    async with asyncio.timeout(self._timeout):
                        self._current = _PublishingChannel(await declare.raw_channel(connection, confirms=True))
            return self._current

    def _retire(self, channel: _PublishingChannel) -> None:
        """Publish nothing more on `channel`; the last publish that waits on it closes it.

        A returned publish does not come here: its outcome is known and the channel's books are in order.
        """
        if self._current is channel:
            self._current = None


def _names_missing_exchange(error: BrokerUnavailable, exchange: str) -> bool:
    # All publishes that wait on a channel get the error the broker closed it with: only one that names its own exchange
    # knows that it went nowhere.
    return isinstance(error.__cause__, ChannelNotFoundEntity) and f"no exchange '{exchange}' " in str(error)


async def _close_channel(channel: AbstractChannel) -> None:
    with suppress(SwitchboardError), amqp_errors("closing a channel"):
        async with asyncio.timeout(CLOSE_SECONDS):
            await channel.close()


class RabbitMQBroker:
    """The `Broker` seam on RabbitMQ 3.10 or newer; consuming and publishing on separate connections.

    One connection for both directions can deadlock under a broker alarm: the broker stops reading from connections that
    publish, and acks would be stuck behind the publishes.
    """

    def __init__(self, url: str, *, publish_timeout: float = 10.0, connect_timeout: float = 10.0) -> None:
        self._consuming = _Link(url, "consume", connect_timeout)
        self._publishing = _Link(url, "publish", connect_timeout)
        self._publisher = _Publisher(self._publishing, publish_timeout)
        self._applied: set[Topology] = set()

    async def open(self) -> None:
        """Connect both ways once."""
        await self._consuming.get()
        await self._publishing.get()

    async def close(self) -> None:
        """Close both connections."""
        await asyncio.gather(self._consuming.close(), self._publishing.close())

    async def version(self) -> str:
        """The broker's version, such as "3.10.8"."""
        return declare.check_version(await self._publishing.get())

    async def apply(self, topology: Topology) -> None:
        """Declare `topology`; see `interfaces.brokers.declare`."""
        connection = await self._publishing.get()
        with amqp_errors("declaring the topology"):
            await declare.apply(connection, topology, is_known=topology in self._applied)
        self._applied.add(topology)

    async def publish(self, message: Outgoing) -> None:
        """Publish with a confirm; see `interfaces.brokers.Broker`."""
        await self._publisher.publish(message)

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` on a channel of its own."""
        connection = await self._consuming.get()
        async with AsyncExitStack() as undoing:
            with amqp_errors(f"consuming queue {queue!r}"):
                raw = await declare.raw_channel(connection)
                channel = RabbitMQChannel(raw, queue)
                # Left open by a caller that was cancelled, it would keep what it gets and the queue's one active place.
                undoing.push_async_callback(channel.close)

                async def on_message(message: DeliveredMessage) -> None:
                    deliver(_delivery(message, channel))

                await raw.basic_qos(prefetch_count=prefetch)
                await raw.basic_consume(queue, on_message)
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


def _delivery(message: DeliveredMessage, channel: RabbitMQChannel) -> Delivery:
    properties, delivery_count = from_amqp(message.header.properties)
    return Delivery(
        body=message.body,
        properties=properties,
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        redelivered=bool(message.redelivered),
        delivery_count=delivery_count,
        tag=message.delivery_tag or 0,
        channel=channel,
    )
