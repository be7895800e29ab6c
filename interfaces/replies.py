"""Replies on their way back upstream: the iterator behind `BrokerClient.replies`, and reading one delivery."""

import asyncio
import logging
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from interfaces.brokers import Broker, Delivery
from interfaces.consumers import KeptConsumer
from interfaces.encryption import Keys
from interfaces.errors import QueueStranded
from interfaces.reply_bodies import DEFAULT_INTERFACE, Reply, decode_reply
from interfaces.topology import Topology

if TYPE_CHECKING:
    from interfaces.tracing import Tracing

logger = logging.getLogger(__name__)

PRIVATE_QUEUE_LIFE: Final = timedelta(minutes=10)
"""How long a client may be away before its own reply queue, and what waits there, is dropped."""

NAMED_QUEUE_LIFE: Final = timedelta(days=7)

PREFETCH: Final = 500


def read_reply(delivery: Delivery, keys: Keys | None = None, tracing: "Tracing | None" = None) -> Reply | None:
    """The reply in a delivery; `None`, with a line in the log, where it is none."""
    if tracing is not None:
        tracing.received(delivery)
    try:
        return decode_reply(delivery.body, keys)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one message must not end the listening
        logger.error("message %r on a reply queue is no reply: %s", delivery.properties.message_id, error)
        return None


class Replies:
    """Replies of one interface, or of all where none is named, as they come. An async iterator and context manager."""

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        queue: str | None,
        interface: str | None,
        keys: Keys | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._broker = broker
        self._keys, self._tracing = keys, tracing
        self._prefix = f"{topology.reply_prefix}{interface or DEFAULT_INTERFACE}."
        self._queue = topology.reply_prefix + queue if queue else self._prefix + str(uuid4())
        self._is_kept = queue is not None
        self._life = NAMED_QUEUE_LIFE if queue else PRIVATE_QUEUE_LIFE
        self._binding = (topology.replies_exchange, f"{interface}.#" if interface else "#")
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._taken: Delivery | None = None
        self._consuming: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen; replies published from now on will come. Raises `BrokerUnavailable`, `BrokerRefused`."""
        if self._consuming is None:
            await self._declare()
            kept = KeptConsumer(
                self._broker,
                self._queue,
                PREFETCH,
                self._arrived.put_nowait,
                declare=self._declare,
                is_replicated=self._is_kept,
            )
            self._consuming = asyncio.create_task(kept.run(), name=f"replies from {self._queue}")

    async def close(self) -> None:
        """Stop listening. The last reply given out counts as taken; the next ones wait in a named queue."""
        await self._settle()
        if self._consuming is not None:
            self._consuming.cancel()
            await asyncio.gather(self._consuming, return_exceptions=True)
            self._consuming = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._taken = None  # Its reader failed on it: it comes again.
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        await self.open()
        while True:
            await self._settle()
            try:
                self._taken = await self._next()
            except QueueStranded as error:
                # Only a queue without a name is in one place alone. What is in it is lost to us with its node.
                logger.warning("replies are missed, taking a new queue for them: %s", error)
                self._queue, self._consuming = self._prefix + str(uuid4()), None
                await self.open()
                continue
            if (
                self._taken.channel.is_open
                and (reply := read_reply(self._taken, self._keys, self._tracing)) is not None
            ):
                return reply

    async def _next(self) -> Delivery:
        """The next delivery; raises what ended the listening where that happens first."""
        assert self._consuming is not None  # noqa: S101 - `open` has just set it
        arrived = asyncio.ensure_future(self._arrived.get())
        try:
            await asyncio.wait({arrived, self._consuming}, return_when=asyncio.FIRST_COMPLETED)
            if not arrived.done():
                await self._consuming
            return arrived.result()
        finally:
            arrived.cancel()

    async def _settle(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            await taken.channel.ack(taken)

    async def _declare(self) -> None:
        await self._broker.declare_reply_queue(self._queue, self._life, [self._binding], replicated=self._is_kept)
