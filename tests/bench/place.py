"""Where contenders work: one RabbitMQ and one Redis of the benchmark's own, filled and emptied for every run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from uuid import uuid4

import aiormq
from aiormq.abc import AbstractChannel, ConsumerCallback, DeliveredMessage
from pamqp import commands
from redis.asyncio import Redis

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.topology import Topology, slot
from tests.bench.work import Work, body_of
from tests.services.local import LocalBroker, LocalRedis

PUBLISHED_AT_ONCE = 500


class Place:
    """Servers, and the queues of the run that goes on in them."""

    def __init__(self, broker: LocalBroker, redis: LocalRedis) -> None:
        self.broker, self.redis = broker, redis
        self.topology = Topology()
        self.replies = ""
        self._connection: aiormq.abc.AbstractConnection
        self._channel: AbstractChannel
        self._holding: AbstractChannel

    async def open(self) -> None:
        """Connect."""
        self._connection = await aiormq.connect(self.broker.url)
        self._channel = await self._connection.channel()

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def prepare(self, shards: int) -> None:
        """Have empty queues for a new run, and nothing in Redis."""
        self.topology = Topology(f"bench-{uuid4().hex[:8]}", shards)
        self.replies = f"{self.topology.reply_prefix}bench"
        async with Redis.from_url(self.redis.url) as redis:
            await redis.flushall()
        seam = RabbitMQBroker(self.broker.url)
        await seam.open()
        try:
            await seam.apply(self.topology)
        finally:
            await seam.close()
        await self.declare(self.replies)

    async def declare(self, queue: str) -> None:
        """A quorum queue."""
        await self._channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})

    async def fill(self, work: Work) -> None:
        """Publish all requests of `work`, each to its context's queue, and wait for the confirms."""
        await self.publish((self.queue_of(ctx_id), body_of(ctx_id, text)) for ctx_id, text in work)

    async def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish bodies to queues, in order."""
        waiting: list[asyncio.Future[object]] = []
        for queue, body in messages:
            waiting.append(asyncio.ensure_future(self._publish(queue, body)))
            if len(waiting) == PUBLISHED_AT_ONCE:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)

    async def _publish(self, queue: str, body: bytes) -> None:
        exchange, key = "", queue
        if queue in self.topology.shard_queues:
            start = body.index(b'"ctx_id": "') + len(b'"ctx_id": "')
            exchange, key = self.topology.requests_exchange, str(slot(body[start : body.index(b'"', start)].decode()))
        properties = commands.Basic.Properties(
            message_id=uuid4().hex, delivery_mode=2, content_type="application/json", reply_to=self.replies
        )
        await self._channel.basic_publish(  # type: ignore[call-arg]  # `wait` is missing in the abstract class only
            body, exchange=exchange, routing_key=key, properties=properties, wait=False
        )

    def queue_of(self, ctx_id: str) -> str:
        """Where a context's requests are."""
        return self.topology.queue_of(slot(ctx_id))

    async def hold(self) -> None:
        """Be the active consumer of every request queue, so that nobody else gets anything before `release`."""
        self._holding = await self._connection.channel()
        await self._holding.basic_qos(prefetch_count=1)
        for queue in self.topology.shard_queues:
            await self._holding.basic_consume(queue, _ignore)

    async def release(self) -> None:
        """Let the next consumer of each queue have all of it: what was held goes back to the head."""
        await self._holding.close()

    async def answered(self) -> int:
        """Replies in the queue."""
        state = await self._channel.queue_declare(self.replies, passive=True)
        return state.message_count or 0

    async def drop_replies(self) -> None:
        """Throw all replies away."""
        await self._channel.queue_purge(self.replies)

    async def take_replies(self) -> list[bytes]:
        """All replies, in their order."""
        count = await self.answered()
        bodies: list[bytes] = []
        complete = asyncio.Event()
        if count == 0:
            return bodies

        async def take(message: DeliveredMessage) -> None:
            bodies.append(message.body)
            if len(bodies) == count:
                complete.set()

        channel = await self._connection.channel()
        await channel.basic_qos(prefetch_count=1000)
        acknowledging = await channel.basic_consume(self.replies, _and_ack(channel, take))
        assert acknowledging.consumer_tag
        async with asyncio.timeout(120):
            await complete.wait()
        await channel.close()
        return bodies

    async def clear(self) -> None:
        """Delete the queues of the run."""
        for queue in (*self.topology.shard_queues, self.topology.dead, self.replies):
            await self._channel.queue_delete(queue)
        for exchange in self.topology.exchanges:
            await self._channel.exchange_delete(exchange)


async def _ignore(_: DeliveredMessage) -> None:
    """Held until the channel is closed."""


def _and_ack(channel: AbstractChannel, take: Callable[[DeliveredMessage], Awaitable[None]]) -> ConsumerCallback:
    async def on_message(message: DeliveredMessage) -> None:
        await take(message)
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag, wait=False)

    return on_message
