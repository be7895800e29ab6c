"""Names and arguments of everything Switchboard declares on a broker (wire contract v1, "Topology").

Pure values: `brokers.rabbitmq` declares them, `brokers.memory` imitates them, `switchboard topology show` prints them.
A context's slot never changes, and the binding of a slot is explicit, so a broker restart moves nothing. The number of
shards changes by a new generation of queues, which takes over slot by slot (docs/decisions/0010).
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Arguments = Mapping[str, str | int | bool]
"""A queue's `x-` arguments."""

SLOTS = 1024
"""Number of hash classes of context ids. Part of the wire contract: publishers in other languages compute the slot."""

MAX_SHARDS = 256

GENERATIONS_AHEAD = 16
"""How far later generations are looked for where the expected one does not exist."""

ExchangeKind = Literal["direct", "topic", "fanout"]

DELIVERY_LIMIT = 100_000
"""A hand-over counts as a delivery, so a low limit would dead-letter healthy messages; without any limit a quorum queue
returns messages to its tail (https://www.rabbitmq.com/docs/quorum-queues#repeated-requeues). Crashes are counted in the
store instead."""

DEFAULT_MAX_LENGTH = 1_000_000
"""Requests a shard queue holds before publishers are refused (nack), rather than the broker's disk filling up."""

DEFAULT_PREFETCH = 8192
"""So wide that one context with thousands of requests leaves room for those behind it (docs/decisions/0016)."""
MAX_PREFETCH = 65_535
"""AMQP's own."""


def slot(ctx_id: str) -> int:
    """Slot of a context: CRC-32 (IEEE) of the id's UTF-8 bytes, modulo 1024."""
    return zlib.crc32(ctx_id.encode()) % SLOTS


def reply_queue_arguments(expires: timedelta, *, replicated: bool) -> Arguments:
    """Arguments of a queue for replies, which the broker drops after `expires` without a consumer.

    One client's own queue is a classic one: its replies can be asked for again, a confirm is faster, and on RabbitMQ
    3.10 a quorum queue that expires while somebody publishes to it costs the publisher its connection.
    """
    expiry: Arguments = {"x-expires": expires // timedelta(milliseconds=1)}
    if replicated:
        return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT, **expiry}
    return {"x-queue-type": "classic", **expiry}


@dataclass(frozen=True, slots=True)
class Topology:
    """One namespace's exchanges and queues, with `shards` request queues in generation `generation`."""

    namespace: str = "switchboard"
    shards: int = 8
    generation: int = 1
    max_length: int = DEFAULT_MAX_LENGTH
    prefetch: int = DEFAULT_PREFETCH
    """Unacknowledged requests that the consumer of a request queue holds at most: the same for all who ever consume it.

    A quorum queue keeps what comes back in a line before all else, and puts what comes back once more at the end of
    that line: a consumer that holds less than one before it turns the order around when it closes.
    """

    @property
    def requests_exchange(self) -> str:
        """Direct exchange that publishers send requests to, routing key = slot."""
        return f"{self.namespace}.requests"

    @property
    def alternate_exchange(self) -> str:
        """Direct exchange that the broker asks about a slot that is not bound to `requests_exchange`."""
        return f"{self.namespace}.requests.alternate"

    @property
    def slots_exchange(self) -> str:
        """The exchange this generation's slots are bound to: odd ones the first, even ones its alternate.

        So a slot moves to the next generation by one step of the broker, the removal of a binding in the first exchange
        or the addition of one there. Two steps would lose requests or put them into two queues in between.
        """
        return self.requests_exchange if self.generation % 2 else self.alternate_exchange

    @property
    def exchanges(self) -> Mapping[str, tuple[ExchangeKind, Arguments]]:
        """Kind and arguments of every exchange, in an order they can be declared in."""
        return {
            self.alternate_exchange: ("direct", {}),
            self.requests_exchange: ("direct", {"alternate-exchange": self.alternate_exchange}),
            self.replies_exchange: ("topic", {}),
            self.dead: ("fanout", {}),
        }

    @property
    def replies_exchange(self) -> str:
        """Topic exchange for replies of requests without `reply_to`."""
        return f"{self.namespace}.replies"

    @property
    def dead(self) -> str:
        """Name of both the dead-letter exchange (fanout) and its queue."""
        return f"{self.namespace}.dead"

    @property
    def reply_prefix(self) -> str:
        """How the name of a queue must begin for a request's `reply_to` to be honoured."""
        return f"{self.namespace}.reply."

    def edge_queue(self, interface: str) -> str:
        """Queue in which the edges of an interface are asked for attachments that only they can fetch."""
        return f"{self.namespace}.edge.{interface}"

    def shard_queue(self, shard: int) -> str:
        """Name of request queue number `shard` (from 0)."""
        return f"{self.namespace}.requests.g{self.generation}.{shard:03d}"

    @property
    def shard_queues(self) -> list[str]:
        """All request queues, in order."""
        return [self.shard_queue(shard) for shard in range(self.shards)]

    def queue_of(self, slot_number: int) -> str:
        """Request queue that `slot_number` is bound to."""
        return self.shard_queue(slot_number % self.shards)

    def feeders(self, previous: "Topology") -> dict[str, set[str]]:
        """For each request queue those of the previous generation that had any of its slots before."""
        feeders: dict[str, set[str]] = {queue: set() for queue in self.shard_queues}
        for number in range(SLOTS):
            feeders[self.queue_of(number)].add(previous.queue_of(number))
        return feeders

    @property
    def shard_arguments(self) -> Arguments:
        """Arguments of a request queue: replicated, in order, bounded, nothing dropped."""
        return {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-overflow": "reject-publish",
            "x-max-length": self.max_length,
            "x-queue-leader-locator": "balanced",
            "x-dead-letter-exchange": self.dead,
            "x-dead-letter-strategy": "at-least-once",
        }

    @property
    def dead_arguments(self) -> Arguments:
        """Arguments of the dead-letter queue: replicated, unbounded, never expiring."""
        return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
