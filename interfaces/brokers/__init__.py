"""The broker seam: what the rest of Switchboard may ask of a message broker, and nothing more.

Two implementations, `rabbitmq` and `memory`, pass the same tests (`tests/conformance`). A broker moves bytes: it knows
neither contexts nor JSON. It never requeues: a request goes back to the head of its queue only by closing the channel
it was delivered on, because that is what keeps order (docs/decisions/0003).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from interfaces.topology import Topology


# Not frozen, here and below: that takes three times as long to make, and every turn makes some.
@dataclass(slots=True)
class Properties:
    """The AMQP 0-9-1 basic properties, named as there. `None` means absent, which is not the same as empty."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Time to live in milliseconds, in decimal digits."""
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


@dataclass(slots=True)
class Outgoing:
    """One message to publish."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    mandatory: bool = True


@dataclass(slots=True, eq=False)
class Delivery:
    """One message as it came from a queue, bytes and properties untouched."""

    body: bytes
    properties: Properties
    exchange: str
    routing_key: str
    redelivered: bool
    delivery_count: int
    """How often it was delivered before (a quorum queue's `x-delivery-count`); 0 the first time."""
    tag: int
    channel: "Channel" = field(repr=False)


class Channel(Protocol):
    """One consumer on one queue, on a channel of its own."""

    @property
    def queue(self) -> str:
        """Name of the queue consumed."""

    @property
    def is_open(self) -> bool:
        """False once closed by either side: what it delivered belongs to somebody else, an ack does nothing."""

    @property
    def unsettled(self) -> Mapping[int, float]:
        """Event loop time of each delivery not yet acknowledged, by its tag, the oldest first."""

    async def wait_closed(self) -> None:
        """Return when the channel is closed, by whatever: asked for, connection lost, cancelled by the broker."""

    async def verify(self) -> bool:
        """Ask the broker, on this channel, whether it is still open there; `is_open` may be what a paused process
        remembers. True means: when this was called, nobody else had been given what the channel has delivered."""

    async def ack(self, delivery: Delivery) -> None:
        """Settle a delivery of this channel. On a closed channel it does nothing: the message comes again."""

    async def close(self) -> None:
        """Close. Unacknowledged deliveries go back to the head of the queue in order. Never raises, may be repeated."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a passive declare tells about a queue."""

    messages: int
    """Messages ready for delivery, unacknowledged ones not counted."""
    consumers: int
    """Where the queue has a single active consumer, RabbitMQ counts that one and not those that wait."""


class Broker(Protocol):
    """A connection to one broker. All methods but `close` raise `BrokerUnavailable` while it cannot be reached."""

    async def open(self) -> None:
        """Connect, once. Raises `BrokerRefused` (credentials, virtual host, version) or `BrokerUnavailable`."""

    async def close(self) -> None:
        """Close every channel and connection. Never raises, may be repeated."""

    async def apply(self, topology: Topology) -> None:
        """Declare everything in `topology` and bind its slots. Repeatable.

        Raises `BrokerRefused` when it exists with other arguments, or a later generation exists.
        """

    async def declare(self, topology: Topology) -> None:
        """As `apply`, but bind no slot: the queues of a next generation are there, and nothing leads to them yet."""

    async def move_slots(self, slots: Collection[int], previous: Topology, current: Topology) -> None:
        """Let these slots lead to the queues of `current` instead of `previous`, the generation before it.

        Each slot moves in one step: a request that is published meanwhile is put into one of the two queues, never
        into both and never into none. Repeatable, also after it was interrupted at any point.
        """

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm.

        Raises `Unroutable` when a mandatory message was returned (where it has a `message_id`: clients match returns by
        it), `HeadersTooLarge`, `PublishNacked`, `PublishTimeout`, or another `BrokerUnavailable` when the outcome is
        unknown. After any of the last three the same bytes may be published again.
        Messages published one after the other by one caller arrive in that order.
        """

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` on a new channel with at most `prefetch` unacknowledged deliveries.

        `deliver` is called in delivery order, must not block and must not raise.
        Raises `BrokerUnavailable` where the queue is missing.
        """

    async def consume_alone(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """As `consume`, but only one broker object at a time gets a queue this way. `consume` is not held back.

        Raises `QueueTaken` while another one has it. Given up with the channel, however that is closed.
        """

    async def queue_state(self, queue: str) -> QueueState | None:
        """State of `queue`, `None` where it does not exist."""

    async def declare_reply_queue(
        self, name: str, expires: timedelta, bindings: Sequence[tuple[str, str]] = (), *, replicated: bool = False
    ) -> None:
        """Declare a durable queue, bound to each (exchange, key), that goes after `expires` without a consumer.

        `replicated` keeps what is in it when a broker node is lost, at the price of a slower confirm.
        """

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with what it holds; nothing happens where it does not exist."""
