"""The embedded broker behind `memory://NAME`: RabbitMQ's semantics inside one process, with nothing installed or kept.

All brokers of one name in a process share a `MemoryServer`, as clients share a real one. Only what the seam shows is
imitated, and the conformance suite holds both to it. Where RabbitMQ would refuse, this refuses: a bot that works
embedded must not fail when it meets the real broker.
"""

import asyncio
import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from interfaces.brokers import Channel, Delivery, Outgoing, QueueState
from interfaces.brokers.memory_queue import Arguments, MemoryChannel, MemoryQueue
from interfaces.errors import BrokerRefused, BrokerUnavailable, PublishNacked, QueueTaken, Unroutable
from interfaces.topology import GENERATIONS_AHEAD, SLOTS, ExchangeKind, Topology, reply_queue_arguments


def topic_matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a topic binding's words match a routing key's: `*` is any one word, `#` any number of them or none."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic_matches(pattern[1:], words[start:]) for start in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic_matches(pattern[1:], words[1:])


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


@dataclass(slots=True)
class Exchange:
    """Bindings of one exchange: routing key to names of queues."""

    kind: ExchangeKind
    alternate: str | None = None
    bindings: dict[str, set[str]] = field(default_factory=dict)

    def unbind(self, queue: str, only: str | None = None) -> None:
        """Forget the bindings of a queue, all or those with the key `only`."""
        self.bindings = {
            key: left
            for key, queues in self.bindings.items()
            if (left := queues - {queue} if only in (None, key) else queues)
        }

    def route(self, key: str) -> set[str]:
        """Queues a message goes to, each once however many bindings match."""
        if self.kind == "direct":
            return self.bindings.get(key, set())
        matching = (
            queues
            for pattern, queues in self.bindings.items()
            if self.kind == "fanout" or topic_matches(_words(pattern), _words(key))
        )
        return set().union(*matching)


class MemoryServer:
    """Exchanges and queues shared by every broker of one name. Synchronous: one call, one atomic step."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, MemoryQueue] = {}

    def apply(self, topology: Topology) -> None:
        """Declare `topology`, or change nothing and raise `BrokerRefused`."""
        self.declare(topology)
        for number in range(SLOTS):
            self.bind(topology.queue_of(number), topology.slots_exchange, str(number))

    def declare(self, topology: Topology) -> None:
        """Declare `topology` without its slots, or change nothing and raise `BrokerRefused`."""
        self._refuse_later_generation(topology)
        self._refuse_other_slots(topology)
        queues = dict.fromkeys(topology.shard_queues, topology.shard_arguments)
        queues[topology.dead] = topology.dead_arguments
        for name, arguments in queues.items():
            self._refuse_other_arguments(name, arguments)
        for name, (kind, extra) in topology.exchanges.items():
            alternate = extra.get("alternate-exchange")
            self._exchanges.setdefault(name, Exchange(kind, None if alternate is None else str(alternate)))
        for name, arguments in queues.items():
            self.declare_queue(name, arguments)
        self.bind(topology.dead, topology.dead, "")

    def move_slots(self, slots: Collection[int], previous: Topology, current: Topology) -> None:
        """Let `slots` lead to the queues of `current`."""
        for number in slots:
            self.bind(current.queue_of(number), current.slots_exchange, str(number))
            if previous.slots_exchange == previous.requests_exchange:
                self._exchange(previous.requests_exchange).unbind(previous.queue_of(number), only=str(number))

    def declare_queue(self, name: str, arguments: Arguments) -> None:
        """Declare a queue. Raises `BrokerRefused` where it exists with other arguments."""
        self._refuse_other_arguments(name, arguments)
        if name not in self._queues:
            self._queues[name] = MemoryQueue(name, arguments, self._dead_letter, lambda: self.delete_queue(name))
        self._queues[name].touch()

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a declared queue. Raises `BrokerUnavailable` where there is no such exchange."""
        self._exchange(exchange).bindings.setdefault(key, set()).add(queue)

    def publish(self, message: Outgoing) -> None:
        """Put a message into all its queues; see `interfaces.brokers.Broker.publish`."""
        expiration = message.properties.expiration
        if expiration is not None and not expiration.isdecimal():
            raise BrokerRefused(f"publishing to {_target(message)}: {expiration!r} is no expiration in milliseconds")
        if message.exchange and message.exchange not in self._exchanges:
            raise Unroutable(f"publishing to {_target(message)}: there is no such exchange, so no topology is declared")
        queues = self._route(message)
        if message.mandatory and not queues:
            raise Unroutable(f"publishing to {_target(message)}: no queue is bound for it")
        full = [queue.name for queue in queues if queue.is_full]
        for queue in queues:
            if not queue.is_full:
                queue.append(message)
        if full:
            raise PublishNacked(f"publishing to {_target(message)}: queue {full[0]!r} is full")

    def find_queue(self, name: str) -> MemoryQueue | None:
        """The queue, `None` where it does not exist."""
        return self._queues.get(name)

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its bindings and messages, and close its channels. May be repeated."""
        queue = self._queues.pop(name, None)
        if queue is None:
            return
        for exchange in self._exchanges.values():
            exchange.unbind(name)
        queue.delete()

    def _exchange(self, name: str) -> Exchange:
        try:
            return self._exchanges[name]
        except KeyError as error:
            raise BrokerUnavailable(f"there is no exchange {name!r}") from error

    def _route(self, message: Outgoing) -> list[MemoryQueue]:
        # The default exchange "" leads to every queue by its own name.
        key = message.routing_key
        names = {key} if message.exchange == "" else self._names(message.exchange, key)
        return [self._queues[name] for name in names if name in self._queues]

    def _dead_letter(self, message: Outgoing) -> None:
        for queue in self._route(message):
            queue.append(message)

    def _names(self, exchange: str, key: str) -> set[str]:
        found = self._exchange(exchange)
        names = found.route(key)
        return self._names(found.alternate, key) if not names and found.alternate else names

    def _refuse_later_generation(self, topology: Topology) -> None:
        for later in range(1, GENERATIONS_AHEAD + 1):
            queue = replace(topology, generation=topology.generation + later).shard_queue(0)
            if queue in self._queues:
                raise BrokerRefused(f"generation {topology.generation} is not the last: queue {queue!r} exists")

    def _refuse_other_slots(self, topology: Topology) -> None:
        requests = self._exchanges.get(topology.slots_exchange)
        if requests is None:
            return
        for number in range(SLOTS):
            others = requests.route(str(number)) - {topology.queue_of(number)}
            if others:
                raise BrokerRefused(
                    f"slot {number} leads to queue {min(others)!r}, not to {topology.queue_of(number)!r}: "
                    "the number of shards in use is another one, and declaring cannot change it"
                )

    def _refuse_other_arguments(self, name: str, arguments: Arguments) -> None:
        existing = self._queues[name].arguments if name in self._queues else arguments
        for argument in existing.keys() | arguments.keys():
            there, wanted = existing.get(argument), arguments.get(argument)
            if there != wanted:
                raise BrokerRefused(f"queue {name!r} exists with {argument} = {there!r}, not {wanted!r}")


def _target(message: Outgoing) -> str:
    return f"{message.exchange or 'queue'} {message.routing_key!r}"


_servers: dict[str, MemoryServer] = {}


def memory_server(name: str) -> MemoryServer:
    """The process's server of that name, made when first asked for."""
    return _servers.setdefault(name, MemoryServer())


class MemoryBroker:
    """The `Broker` seam on a `MemoryServer`. Closing it closes its own channels and nothing else."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._is_open = False
        self._channels: list[MemoryChannel] = []

    async def open(self) -> None:
        """Begin to answer."""
        self._is_open = True

    async def close(self) -> None:
        """Close every channel of this broker."""
        self._is_open = False
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.shut()

    async def apply(self, topology: Topology) -> None:
        """Declare `topology`, all or nothing."""
        self._connected().apply(topology)

    async def declare(self, topology: Topology) -> None:
        """Declare `topology` without its slots, all or nothing."""
        self._connected().declare(topology)

    async def move_slots(self, slots: Collection[int], previous: Topology, current: Topology) -> None:
        """Move slots to the next generation."""
        self._connected().move_slots(slots, previous, current)

    async def publish(self, message: Outgoing) -> None:
        """Publish a copy of `message`; what the caller does to its headers afterwards changes nothing."""
        server = self._connected()
        properties = replace(message.properties, headers=copy.deepcopy(message.properties.headers))
        server.publish(replace(message, body=bytes(message.body), properties=properties))
        # A confirm takes a turn of the loop, as it does over a network. Without it a caller that publishes in a loop
        # would never let the consumers run.
        await asyncio.sleep(0)

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` on a channel of its own."""
        found = self._connected().find_queue(queue)
        if found is None:
            raise BrokerUnavailable(f"there is no queue {queue!r}")
        channel = MemoryChannel(found, prefetch, deliver)
        found.attach(channel)
        self._channels = [other for other in self._channels if other.is_open] + [channel]
        return channel

    async def consume_alone(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        """Consume `queue` where no other broker object does it this way."""
        found = self._connected().find_queue(queue)
        if found is not None and found.taken_by not in (None, self):
            raise QueueTaken(f"consuming queue {queue!r}: somebody else is at it, and only one may be at a time")
        channel = await self.consume(queue, prefetch, deliver)
        if found is not None:
            found.take_for(self, channel)
        return channel

    async def queue_state(self, queue: str) -> QueueState | None:
        """State of `queue`."""
        found = self._connected().find_queue(queue)
        return None if found is None else found.state

    async def declare_reply_queue(
        self, name: str, expires: timedelta, bindings: Sequence[tuple[str, str]] = (), *, replicated: bool = False
    ) -> None:
        """Declare a reply queue and its bindings."""
        server = self._connected()
        server.declare_queue(name, reply_queue_arguments(expires, replicated=replicated))
        for exchange, key in bindings:
            server.bind(name, exchange, key)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue."""
        self._connected().delete_queue(name)

    def _connected(self) -> MemoryServer:
        if not self._is_open:
            raise BrokerUnavailable("this broker object is closed")
        return self._server
