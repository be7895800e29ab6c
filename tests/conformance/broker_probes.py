"""What the broker conformance tests publish with and look through: an inbox, waits on conditions, numbered messages."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterable

import aio_pika
import pytest

from interfaces.brokers import Broker, Delivery, Outgoing, Properties
from interfaces.brokers.bounded import bounded
from interfaces.topology import Topology, slot

Connect = Callable[[], Awaitable[Broker]]
"""Opens one more broker to the server under test."""

WAIT_SECONDS = 20.0
CLEANUP_ATTEMPTS = 3
REPLY_QUEUES = ("one", "two")


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until `holds` answers yes; fail with `what` where it does not within the time."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await holds():  # noqa: ASYNC110 - a broker tells its state only when asked
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {WAIT_SECONDS} s: {what}")


async def holds_messages(broker: Broker, queue: str, count: int) -> None:
    """Wait until `queue` has `count` messages ready."""

    async def holds() -> bool:
        state = await broker.queue_state(queue)
        return state is not None and state.messages == count

    await eventually(holds, f"{count} messages ready in {queue}")


class Inbox:
    """A consumer that keeps what it is given."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._arrived = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._arrived.set()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    async def wait_for(self, count: int) -> list[Delivery]:
        """Everything delivered, as soon as that is `count` or more."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while len(self.deliveries) < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pytest.fail(f"{len(self.deliveries)} deliveries instead of {count} within {WAIT_SECONDS} s")
        return self.deliveries


def request(topology: Topology, ctx_id: str, body: bytes = b"", properties: Properties | None = None) -> Outgoing:
    """A message for the queue of a context."""
    return Outgoing(topology.requests_exchange, str(slot(ctx_id)), body, properties or new_properties())


def new_properties() -> Properties:
    """What every publisher sets: a message id of its own, and persistence."""
    return Properties(message_id=uuid.uuid4().hex, delivery_mode=2)


async def publish_numbers(broker: Broker, topology: Topology, numbers: range, ctx_id: str = "a") -> str:
    """Publish numbers, one after the other, for one context; return its queue."""
    for number in numbers:
        await broker.publish(request(topology, ctx_id, b"%d" % number))
    return topology.queue_of(slot(ctx_id))


def in_decimal(numbers: Iterable[int]) -> list[bytes]:
    """The bodies that `publish_numbers` publishes."""
    return [b"%d" % number for number in numbers]


async def delete_everything(amqp: str, topology: Topology) -> None:
    """Delete all that a test may have declared; what does not exist is deleted as well.

    Without limits a broker that owes an answer would hold up every test after this one: pytest's own limit ends one
    wait, and then the event loop waits for the channel to be closed.
    """
    for _ in range(CLEANUP_ATTEMPTS):
        with contextlib.suppress(TimeoutError):
            await bounded(_delete_everything(amqp, topology), WAIT_SECONDS)
            return
    pytest.fail(f"the broker does not delete what is declared for namespace {topology.namespace!r}")


async def _delete_everything(amqp: str, topology: Topology) -> None:
    replies = [topology.reply_prefix + name for name in REPLY_QUEUES]
    async with await aio_pika.connect(amqp) as connection:
        channel = await connection.channel()  # Goes with its connection: asked to close, a stuck one would not answer.
        for queue in [*topology.shard_queues, topology.dead, *replies]:
            await channel.queue_delete(queue)
        for exchange in topology.exchanges:
            await channel.exchange_delete(exchange)
