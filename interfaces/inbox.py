"""A private queue for answers, and who waits for what comes into it, by the id that an answer carries.

The queue belongs to this process alone, so its one copy is enough: where the broker node that holds it is lost, whoever
waits is told with `QueueStranded` and asks again, into a new queue. Used by `BrokerClient` for replies, and by workers
that ask an edge for an attachment.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Generic, TypeVar
from uuid import uuid4

from interfaces.brokers import Broker, Delivery
from interfaces.consumers import KeptConsumer
from interfaces.errors import BrokerRefused, BrokerUnavailable, QueueStranded
from interfaces.replies import PREFETCH, PRIVATE_QUEUE_LIFE
from interfaces.topology import Topology

T = TypeVar("T")


class Inbox(Generic[T]):
    """Answers that come into a queue of our own.

    :param owner: part of the queue's name, by which a broker's permissions tell one owner's queues from another's.
    :param read: gives the id and the answer in a delivery, `None` for what is no answer. It must not raise.
    """

    def __init__(
        self, broker: Broker, topology: Topology, owner: str, read: Callable[[Delivery], tuple[str, T] | None]
    ) -> None:
        self._broker = broker
        self._prefix = f"{topology.reply_prefix}{owner}."
        self._read = read
        self._queue = self._new_queue()
        self._waiting: dict[str, list[asyncio.Future[T]]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._start_listening = asyncio.Lock()

    @property
    def queue(self) -> str:
        """Where answers are to go. Read it once waiting: whoever waits is told when it changes."""
        return self._queue

    @property
    def is_listening(self) -> bool:
        """Whether the queue is consumed, or will be once the broker is back."""
        return self._listening is not None

    @contextmanager
    def waiting(self, key: str) -> Iterator[asyncio.Future[T]]:
        """The answer with this id, for as long as somebody waits for it. Several may: the first answer is for all.

        It fails with what ended the listening: `QueueStranded` where the queue was lost, `ConsumerLost`, or
        `BrokerUnavailable` after `close`.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        try:
            yield answer
        finally:
            waiting = self._waiting[key]
            waiting.remove(answer)
            if not waiting:
                del self._waiting[key]

    async def listen(self) -> None:
        """Have the queue consumed; nothing happens where it is. Raises `BrokerUnavailable` or `BrokerRefused`."""
        async with self._start_listening:
            if self._listening is not None:
                return
            await self._declare()
            kept = KeptConsumer(
                self._broker,
                self._queue,
                PREFETCH,
                self._on_delivery,
                declare=self._declare,
                is_replicated=False,
            )
            self._listening = asyncio.create_task(kept.run(), name=f"answers in {self._queue}")
            self._listening.add_done_callback(self._on_listening_ended)

    async def close(self, reason: str) -> None:
        """Stop listening and drop the queue. Whoever still waits gets `BrokerUnavailable(reason)`."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            with suppress(BrokerUnavailable, BrokerRefused):
                await self._broker.delete_queue(self._queue)
        self._fail_waiting(BrokerUnavailable(reason))

    def _new_queue(self) -> str:
        return f"{self._prefix}{uuid4()}"

    async def _declare(self) -> None:
        await self._broker.declare_reply_queue(self._queue, PRIVATE_QUEUE_LIFE)

    def _on_delivery(self, delivery: Delivery) -> None:
        read = self._read(delivery)
        if read is not None:
            key, answer = read
            # One that nobody waits for is a repeated one, or came after whoever asked had given up.
            for waiting in self._waiting.get(key, []):
                if not waiting.done():
                    waiting.set_result(answer)
        settling = asyncio.create_task(delivery.channel.ack(delivery), name="acknowledge answer")
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    def _on_listening_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._listening = None
            if isinstance(error, QueueStranded):
                self._queue = self._new_queue()
            self._fail_waiting(error)

    def _fail_waiting(self, error: BaseException) -> None:
        for waiting in chain.from_iterable(self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(error)
