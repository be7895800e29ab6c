"""What every broker does when a generation of request queues takes over from the one before."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from interfaces.brokers import Broker
from interfaces.errors import BrokerRefused, Unroutable
from interfaces.topology import SLOTS, Topology, slot
from tests.conformance.broker_probes import Connect, delete_everything, eventually, holds_messages, request

pytest_plugins = ["tests.conformance.broker_fixtures"]


@pytest.fixture
async def generations(broker: Broker, topology: Topology, amqp: str | None) -> AsyncIterator[list[Topology]]:
    """The applied topology, and the two that follow it, with other numbers of shards."""
    following = [replace(topology, generation=2, shards=6), replace(topology, generation=3, shards=2)]
    yield [topology, *following]
    if amqp is not None:
        for later in following:
            await delete_everything(amqp, later)


async def count(broker: Broker, *queues: str) -> int:
    """Messages ready in those of the queues that exist."""
    states = [await broker.queue_state(queue) for queue in queues]
    return sum(state.messages for state in states if state is not None)


async def leads(broker: Broker, ctx_id: str, topology: Topology) -> None:
    """Wait until a request published now is in the context's queue of `topology`."""
    queue = topology.queue_of(slot(ctx_id))
    before = await count(broker, queue)
    await broker.publish(request(topology, ctx_id))
    await holds_messages(broker, queue, before + 1)


async def delete(broker: Broker, topology: Topology) -> None:
    for queue in topology.shard_queues:
        await broker.delete_queue(queue)


async def test_a_declared_generation_gets_nothing_until_slots_move(broker: Broker, generations: list[Topology]) -> None:
    first, second, _ = generations
    await broker.declare(second)
    await leads(broker, "a", first)
    assert await count(broker, *second.shard_queues) == 0


async def test_slots_move_one_by_one_from_each_generation_to_the_next(
    broker: Broker, generations: list[Topology]
) -> None:
    for previous, current in pairwise(generations):
        await broker.declare(current)
        await broker.move_slots([slot("a")], previous, current)
        await leads(broker, "a", current)
        await leads(broker, "b", previous)
        await broker.move_slots(range(SLOTS), previous, current)
        await leads(broker, "b", current)
        await delete(broker, previous)
        await leads(broker, "b", current)


async def test_what_is_published_while_slots_move_is_in_exactly_one_queue(
    connect: Connect, broker: Broker, generations: list[Topology]
) -> None:
    publishing = await connect()
    queues = [queue for topology in generations for queue in topology.shard_queues]
    published = 0

    async def publish(moved: asyncio.Event) -> None:
        nonlocal published
        while not moved.is_set():
            await publishing.publish(request(generations[0], str(published)))
            published += 1

    for previous, current in pairwise(generations):
        await broker.declare(current)
        moved = asyncio.Event()
        task = asyncio.create_task(publish(moved))
        for first in range(0, SLOTS, 64):
            await broker.move_slots(range(first, first + 64), previous, current)
            await asyncio.sleep(0)  # the embedded broker moves them without letting anybody publish
        moved.set()
        await task

        async def all_there() -> bool:
            return await count(broker, *queues) == published

        await eventually(all_there, f"{published} messages are ready")
    assert await count(broker, *generations[1].shard_queues) > 0


async def test_moving_and_declaring_may_be_repeated_even_after_the_old_queues_are_gone(
    broker: Broker, generations: list[Topology]
) -> None:
    for previous, current in pairwise(generations):
        before = await count(broker, *previous.shard_queues)
        for _ in range(2):
            await broker.declare(current)
            await broker.move_slots(range(SLOTS), previous, current)
        await leads(broker, "a", current)
        assert await count(broker, *previous.shard_queues) == before
        await delete(broker, previous)
        await broker.move_slots(range(SLOTS), previous, current)
        await leads(broker, "a", current)


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_older_generation_is_refused(broker: Broker, generations: list[Topology], is_there: bool) -> None:
    first, second, _ = generations
    await broker.declare(second)
    if not is_there:
        await delete(broker, first)
    with pytest.raises(BrokerRefused, match=r"generation 1 .*is not the last"):
        await broker.apply(first)
    with pytest.raises(BrokerRefused, match=r"generation 1 .*is not the last"):
        await broker.declare(first)


async def test_a_slot_that_leads_nowhere_is_unroutable(broker: Broker, generations: list[Topology]) -> None:
    first = generations[0]
    await broker.delete_queue(first.queue_of(slot("a")))
    with pytest.raises(Unroutable):
        await broker.publish(request(first, "a"))
