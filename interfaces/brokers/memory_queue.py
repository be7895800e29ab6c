"""A queue of the embedded broker and the channels that consume it.

It behaves towards its consumers as a RabbitMQ quorum queue with a delivery limit does: what a closed channel leaves
unacknowledged comes first again, in order. A message leaves only acknowledged, dead-lettered or with its queue. Nothing
here awaits, so every step is atomic within the event loop; `brokers.memory` is the only caller.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from interfaces.brokers import Channel, Delivery, Outgoing, Properties, QueueState

Arguments = Mapping[str, str | int | bool]
"""A queue's `x-` arguments, as in `interfaces.topology`."""


@dataclass(slots=True, eq=False)
class Entry:
    """One message in one queue."""

    message: Outgoing
    expires_at: float | None
    """Event loop time."""
    delivery_count: int = 0


class MemoryChannel:
    """One consumer on one queue; see `interfaces.brokers.Channel`."""

    def __init__(self, queue: "MemoryQueue", prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        self._queue = queue
        self._prefetch = prefetch
        self._deliver = deliver
        self._unacked: dict[int, Entry] = {}
        self._unsettled: dict[int, float] = {}
        self._tags = itertools.count(1)
        self._closed = asyncio.Event()

    @property
    def queue(self) -> str:
        """Name of the queue consumed."""
        return self._queue.name

    @property
    def is_open(self) -> bool:
        """Whether acks still count."""
        return not self._closed.is_set()

    @property
    def unsettled(self) -> Mapping[int, float]:
        """What is delivered and not yet acknowledged."""
        return self._unsettled

    @property
    def has_credit(self) -> bool:
        """Whether one more delivery keeps within the prefetch."""
        return len(self._unacked) < self._prefetch

    async def wait_closed(self) -> None:
        """Wait until the channel is closed, by its owner or with its queue."""
        await self._closed.wait()

    async def verify(self) -> bool:
        """Whether the channel is open; here there is nobody else to ask."""
        return self.is_open

    async def ack(self, delivery: Delivery) -> None:
        """Settle; silent on a closed channel. An ack of what is not outstanding closes the channel, as on RabbitMQ."""
        if not self.is_open:
            return
        self._unsettled.pop(delivery.tag, None)
        if self._unacked.pop(delivery.tag, None) is None:
            self.shut()
        else:
            self._queue.wake()

    async def close(self) -> None:
        """Close; unacknowledged deliveries return to the head of the queue."""
        self.shut()

    def shut(self) -> None:
        """Close at once. May be repeated."""
        if self.is_open:
            self._closed.set()
            self._queue.detach(self, self._unacked.values())

    def take(self, entry: Entry) -> None:
        """Deliver `entry` and hold it until it is acknowledged."""
        tag = next(self._tags)
        self._unacked[tag] = entry
        self._unsettled[tag] = asyncio.get_running_loop().time()
        self._deliver(
            Delivery(
                body=entry.message.body,
                properties=entry.message.properties,
                exchange=entry.message.exchange,
                routing_key=entry.message.routing_key,
                redelivered=entry.delivery_count > 0,
                delivery_count=entry.delivery_count,
                tag=tag,
                channel=self,
            )
        )


class MemoryQueue:
    """Messages in order, and the channels that wait for them."""

    def __init__(
        self,
        name: str,
        arguments: Arguments,
        dead_letter: Callable[[Outgoing], None],
        on_unused: Callable[[], None],
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self._dead_letter = dead_letter
        self._on_unused = on_unused
        self._ready: deque[Entry] = deque()
        self._channels: list[MemoryChannel] = []
        self._taken: tuple[object, Channel | None] = (None, None)
        self._waking_on: asyncio.AbstractEventLoop | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._unused_timer: asyncio.TimerHandle | None = None

    @property
    def taken_by(self) -> object | None:
        """Who consumes it alone, while their channel is open."""
        owner, channel = self._taken
        return owner if channel is not None and channel.is_open else None

    def take_for(self, owner: object, channel: Channel) -> None:
        """Note that `owner` consumes it alone."""
        self._taken = owner, channel

    @property
    def state(self) -> QueueState:
        """What a passive declare tells. Consumers that wait for the single active one to go are not counted."""
        return QueueState(len(self._ready), len(self._served))

    @property
    def _has_single_active_consumer(self) -> bool:
        return bool(self.arguments.get("x-single-active-consumer"))

    @property
    def _served(self) -> list[MemoryChannel]:
        return self._channels[:1] if self._has_single_active_consumer else self._channels

    @property
    def is_full(self) -> bool:
        """Whether the queue refuses another message."""
        limit = self._number("x-max-length")
        return limit is not None and len(self._ready) >= limit

    def append(self, message: Outgoing) -> None:
        """Put a message at the tail."""
        expiration = message.properties.expiration
        expires_at = None if expiration is None else asyncio.get_running_loop().time() + int(expiration) / 1000
        self._ready.append(Entry(message, expires_at))
        self.wake()

    def attach(self, channel: MemoryChannel) -> None:
        """Let `channel` consume, or wait to, where the queue has a single active consumer."""
        self._channels.append(channel)
        self._cancel_unused_timer()
        self.wake()

    def detach(self, channel: MemoryChannel, unacked: Iterable[Entry]) -> None:
        """Forget a closed channel; what it held comes first again. Nothing happens once the queue is deleted."""
        if channel not in self._channels:
            return
        self._channels.remove(channel)
        kept = [entry for entry in unacked if self._may_return(entry)]
        self._ready.extendleft(reversed(kept))
        self.wake()
        self.touch()

    def delete(self) -> None:
        """Drop all messages and close all channels."""
        channels, self._channels = self._channels, []
        self._ready.clear()
        self._cancel_unused_timer()
        self.wake()
        for channel in channels:
            channel.shut()

    def touch(self) -> None:
        """Begin anew to count the time without a consumer after which the queue goes, where it has such an argument."""
        self._cancel_unused_timer()
        expires = self._number("x-expires")
        if expires is not None and not self._channels:
            self._unused_timer = asyncio.get_running_loop().call_later(expires / 1000, self._on_unused)

    def wake(self) -> None:
        """Deliver soon. Never at once: a publisher must not run a consumer's code."""
        loop = asyncio.get_running_loop()
        # Comparing loops rather than keeping a flag: a server outlives an event loop that ended before it delivered.
        if self._waking_on is not loop:
            self._waking_on = loop
            loop.call_soon(self._deliver_ready)

    def _deliver_ready(self) -> None:
        self._waking_on = None
        while (head := self._unexpired_head()) is not None and (channel := self._next_channel()) is not None:
            self._ready.popleft()
            channel.take(head)
        self._watch_head()

    def _unexpired_head(self) -> Entry | None:
        """First ready message. As on RabbitMQ a message expires only at the head, so those behind it wait."""
        now = asyncio.get_running_loop().time()
        while self._ready:
            head = self._ready[0]
            if head.expires_at is None or head.expires_at > now:
                return head
            self._ready.popleft()
            self._bury(head, "expired")
        return None

    def _watch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._ready and (expires_at := self._ready[0].expires_at) is not None:
            self._head_timer = asyncio.get_running_loop().call_at(expires_at, self._deliver_ready)

    def _next_channel(self) -> MemoryChannel | None:
        channel = next((channel for channel in self._served if channel.has_credit), None)
        if channel is not None and not self._has_single_active_consumer:  # to the back of the list: they take turns
            self._channels.remove(channel)
            self._channels.append(channel)
        return channel

    def _may_return(self, entry: Entry) -> bool:
        entry.delivery_count += 1
        limit = self._number("x-delivery-limit")
        if limit is None or entry.delivery_count <= limit:
            return True
        self._bury(entry, "delivery_limit")
        return False

    def _bury(self, entry: Entry, reason: Literal["expired", "delivery_limit"]) -> None:
        exchange = self.arguments.get("x-dead-letter-exchange")
        if exchange is not None:
            properties = _with_death(entry.message, self.name, reason)
            self._dead_letter(replace(entry.message, exchange=str(exchange), properties=properties, mandatory=False))

    def _number(self, argument: str) -> int | None:
        value = self.arguments.get(argument)
        return None if value is None else int(value)

    def _cancel_unused_timer(self) -> None:
        if self._unused_timer is not None:
            self._unused_timer.cancel()
            self._unused_timer = None


def _with_death(message: Outgoing, queue: str, reason: str) -> Properties:
    """Properties of a dead-lettered message: without its expiration, and with RabbitMQ's account of what happened.

    An account that the message brought along is replaced, as RabbitMQ does since 4.0: only a broker may write it.
    """
    death: dict[str, Any] = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.now(UTC).replace(microsecond=0),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key],
    }
    if message.properties.expiration is not None:
        death["original-expiration"] = message.properties.expiration
    first = {f"x-first-death-{key}": death[key] for key in ("reason", "queue", "exchange")}
    headers = {**(message.properties.headers or {}), "x-death": [death], **first}
    return replace(message.properties, headers=headers, expiration=None)
