"""Declares a topology on RabbitMQ, and refuses to when another one is already there.

Order matters: the queues are declared from the last to the first and bound only when all exist. So a queue number 0
that exists means its whole generation exists, and a number of shards that differs from it is found before any slot is
bound to two queues, which would deliver every request twice and out of order.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelInvalidStateError, ChannelNotFoundEntity
from pamqp import commands

from interfaces.brokers.channel_numbers import next_number
from interfaces.brokers.mapping import amqp_errors
from interfaces.errors import BrokerRefused
from interfaces.topology import SLOTS, Arguments, Topology

OLDEST_RABBITMQ = (3, 10)
"""First version with at-least-once dead-lettering and a delivery limit that keeps messages at the head."""

BINDING_CHANNELS = 4


def check_version(connection: AbstractConnection) -> str:
    """The broker's version. Raises `BrokerRefused` below 3.10."""
    properties = connection.transport.connection.server_properties if connection.transport else {}
    version = str(properties.get("version", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_RABBITMQ:
        oldest = ".".join(map(str, OLDEST_RABBITMQ))
        raise BrokerRefused(
            f"broker version {version} is too old: RabbitMQ {oldest} or newer is needed, "
            "for quorum queues with at-least-once dead-lettering"
        )
    return version


async def raw_channel(connection: AbstractConnection, *, confirms: bool = False) -> AbstractChannel:
    """A new channel of the connection, as aiormq's own object.

    Not aio-pika's: its messages change properties on the way, and its channels leave tasks behind when they close.
    """
    if connection.transport is None:
        raise ConnectionError("the connection was closed")
    raw = connection.transport.connection
    # `on_return_raises` is not the library's default: without it a returned message counts as a confirmed one.
    return await raw.channel(next_number(raw), publisher_confirms=confirms, on_return_raises=confirms)


async def find_queue(connection: AbstractConnection, queue: str) -> commands.Queue.DeclareOk | None:
    """Passive declare on a channel of its own, since the broker closes the channel where the queue is missing."""
    channel = await raw_channel(connection)
    try:
        return await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    finally:
        await channel.close()


async def declare(
    connection: AbstractConnection, topology: Topology, *, is_known: bool = False, look_ahead: int = 1
) -> None:
    """Declare exchanges and queues of `topology`. Repeatable; raises `BrokerRefused` on any difference.

    A user who may not declare gets by where all of it is there: then an operator has declared it.
    `is_known` tells that this process declared it before: a last queue that is missing was lost since then.
    `look_ahead` is how many later generations are looked for where this one is not there.
    """
    check_version(connection)
    await _refuse_later_generation(connection, topology, look_ahead)
    if not is_known:
        await _refuse_other_shard_count(connection, topology)
    channel = await raw_channel(connection)
    try:
        await _declare_exchanges(channel, topology)
        await _declare_queues(channel, topology)
    except BrokerRefused as error:
        if not isinstance(error.__cause__, ChannelAccessRefused) or not await _is_there(connection, topology):
            raise
    finally:
        await channel.close()


async def _is_there(connection: AbstractConnection, topology: Topology) -> bool:
    """Whether every exchange and queue exists. RabbitMQ asks for no permission where a declaration is passive."""
    channel = await raw_channel(connection)
    try:
        for exchange in topology.exchanges:
            await channel.exchange_declare(exchange, passive=True)
        for queue in (topology.dead, *topology.shard_queues):
            await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return False
    finally:
        await channel.close()
    return True


async def bind_slots(connection: AbstractConnection, topology: Topology) -> None:
    """Bind every slot to its queue. Repeatable.

    Only the last of a channel is answered: those before it are done by then, and where one is refused, the channel is
    closed. Every worker that starts does this, and the answers were two fifths of what it cost.
    """

    async def bind(channel: AbstractChannel, numbers: Sequence[int]) -> None:
        *others, last = numbers
        for number in others:
            await channel.queue_bind(topology.queue_of(number), topology.slots_exchange, str(number), nowait=True)
        await channel.queue_bind(topology.queue_of(last), topology.slots_exchange, str(last))

    await _for_slots(connection, range(SLOTS), bind)


async def move_slots(
    connection: AbstractConnection, slots: Collection[int], previous: Topology, current: Topology
) -> None:
    """Let `slots` lead to the queues of `current`, each in one step; see `Topology.slots_exchange`. Repeatable."""

    async def move(channel: AbstractChannel, numbers: Sequence[int]) -> None:
        for key, old, new in ((str(n), previous.queue_of(n), current.queue_of(n)) for n in numbers):
            # Into the alternate exchange this changes nothing yet; into the first one this is the step.
            await channel.queue_bind(new, exchange=current.slots_exchange, routing_key=key)
            if previous.slots_exchange == previous.requests_exchange:
                await channel.queue_unbind(old, exchange=previous.requests_exchange, routing_key=key)

    await _for_slots(connection, slots, move)


async def _for_slots(
    connection: AbstractConnection,
    slots: Collection[int],
    change: Callable[[AbstractChannel, Sequence[int]], Awaitable[None]],
) -> None:
    async def change_some(numbers: Sequence[int]) -> None:
        channel = await raw_channel(connection)
        try:
            await change(channel, numbers)
        except ChannelInvalidStateError:
            await channel.closing  # The broker has closed it over something before, and this raises why.
            raise
        finally:
            await channel.close()

    shares = [sorted(slots)[first::BINDING_CHANNELS] for first in range(BINDING_CHANNELS)]
    with amqp_errors("binding slots to their queues"):
        await asyncio.gather(*(change_some(share) for share in shares if share))


async def _refuse_later_generation(connection: AbstractConnection, topology: Topology, look_ahead: int) -> None:
    """Queues of an old generation, declared and bound again, would take requests that nobody consumes.

    Beside an existing generation there is at most the next one. Where this one is not there at all, it may be the first
    of a new namespace or one that is long gone: then later ones are looked for further.
    """
    exists = await find_queue(connection, topology.shard_queue(0)) is not None
    for later in range(1, 2 if exists else look_ahead + 1):
        queue = replace(topology, generation=topology.generation + later).shard_queue(0)
        if await find_queue(connection, queue) is not None:
            raise BrokerRefused(
                f"generation {topology.generation} of the request queues is not the last: queue {queue!r} exists, so "
                "the number of shards was changed since: look at `switchboard topology show` with the workers' settings"
            )


async def _refuse_other_shard_count(connection: AbstractConnection, topology: Topology) -> None:
    first, last = topology.shard_queue(0), topology.shard_queue(topology.shards - 1)
    beyond = topology.shard_queue(topology.shards)
    mend = (
        "Set SWITCHBOARD_SHARDS to the number in use; it cannot be changed by declaring, but by "
        f"`switchboard topology reshard --shards {topology.shards}`"
    )
    if await find_queue(connection, beyond) is not None:
        raise BrokerRefused(f"the topology has more than {topology.shards} shards: queue {beyond!r} exists. {mend}.")
    if await find_queue(connection, first) is not None and await find_queue(connection, last) is None:
        raise BrokerRefused(f"the topology has fewer than {topology.shards} shards: no queue {last!r} exists. {mend}.")


async def _declare_exchanges(channel: AbstractChannel, topology: Topology) -> None:
    for exchange, (kind, arguments) in topology.exchanges.items():
        with amqp_errors(f"declaring exchange {exchange!r}"):
            await channel.exchange_declare(exchange, exchange_type=kind, durable=True, arguments=dict(arguments))


async def _declare_queues(channel: AbstractChannel, topology: Topology) -> None:
    with amqp_errors(f"declaring queue {topology.dead!r}"):
        await channel.queue_declare(topology.dead, durable=True, arguments=dict(topology.dead_arguments))
        await channel.queue_bind(topology.dead, exchange=topology.dead)
    for queue in reversed(topology.shard_queues):
        with amqp_errors(f"declaring queue {queue!r}"):
            await channel.queue_declare(queue, durable=True, arguments=dict(topology.shard_arguments))


async def declare_reply_queue(
    connection: AbstractConnection, name: str, arguments: Arguments, bindings: Sequence[tuple[str, str]]
) -> None:
    """Declare a durable queue for replies, bound to each (exchange, routing key)."""
    with amqp_errors(f"declaring queue {name!r}"):
        channel = await raw_channel(connection)
        try:
            await channel.queue_declare(name, durable=True, arguments=dict(arguments))
            for exchange, key in bindings:
                await channel.queue_bind(name, exchange=exchange, routing_key=key)
        finally:
            await channel.close()
