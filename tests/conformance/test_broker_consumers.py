"""What every broker promises those who consume: prefetch, hand-over in order, one active consumer at a time."""

import asyncio

import pytest

from interfaces.brokers import Broker, Delivery, Properties
from interfaces.errors import BrokerUnavailable, QueueTaken
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import (
    WAIT_SECONDS,
    Connect,
    Inbox,
    eventually,
    holds_messages,
    in_decimal,
    publish_numbers,
    request,
)

pytest_plugins = ["tests.conformance.broker_fixtures"]


def history(deliveries: list[Delivery]) -> list[tuple[bytes, bool, int]]:
    return [(delivery.body, delivery.redelivered, delivery.delivery_count) for delivery in deliveries]


async def test_no_more_than_the_prefetch_is_delivered_unacknowledged(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(10))
    inbox = Inbox()
    await broker.consume(queue, 3, inbox)
    await inbox.wait_for(3)
    await holds_messages(broker, queue, 7)
    assert inbox.bodies == in_decimal(range(3))


async def test_an_ack_makes_room_for_one_more_delivery(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(10))
    inbox = Inbox()
    channel = await broker.consume(queue, 3, inbox)
    for settled in range(7):
        deliveries = await inbox.wait_for(settled + 3)
        await channel.ack(deliveries[settled])
    await inbox.wait_for(10)
    await holds_messages(broker, queue, 0)
    assert inbox.bodies == in_decimal(range(10))


async def test_deliveries_may_be_acknowledged_in_any_order(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(5))
    first, second = Inbox(), Inbox()
    channel = await broker.consume(queue, 5, first)
    deliveries = await first.wait_for(5)
    await channel.ack(deliveries[3])
    await channel.ack(deliveries[1])
    await channel.close()
    await broker.consume(queue, 5, second)
    await second.wait_for(3)
    assert second.bodies == [b"0", b"2", b"4"]


async def test_a_channel_knows_what_is_unsettled_and_since_when(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(4))
    inbox = Inbox()
    before = asyncio.get_running_loop().time()
    channel = await broker.consume(queue, 3, inbox)
    deliveries = await inbox.wait_for(3)
    await channel.ack(deliveries[0])
    deliveries = await inbox.wait_for(4)
    assert list(channel.unsettled) == [delivery.tag for delivery in deliveries[1:]]
    assert before <= min(channel.unsettled.values()) <= asyncio.get_running_loop().time()
    await channel.close()


async def test_an_ack_on_a_closed_channel_is_silent_and_settles_nothing(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(1))
    inbox = Inbox()
    channel = await broker.consume(queue, 1, inbox)
    [delivery] = await inbox.wait_for(1)
    await channel.close()
    await channel.ack(delivery)
    await holds_messages(broker, queue, 1)


async def test_an_acknowledged_message_never_comes_again(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(1))
    inbox = Inbox()
    channel = await broker.consume(queue, 1, inbox)
    [delivery] = await inbox.wait_for(1)
    await channel.ack(delivery)
    await channel.close()
    await publish_numbers(broker, topology, range(1, 2))
    again = Inbox()
    await broker.consume(queue, 10, again)
    await again.wait_for(1)
    assert again.bodies == [b"1"]


async def test_an_ack_of_what_is_not_outstanding_closes_the_channel(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(1))
    inbox = Inbox()
    channel = await broker.consume(queue, 1, inbox)
    [delivery] = await inbox.wait_for(1)
    await channel.ack(delivery)
    await channel.ack(delivery)
    async with asyncio.timeout(WAIT_SECONDS):
        await channel.wait_closed()
    assert not channel.is_open


async def test_closing_returns_unacknowledged_messages_to_the_head_in_order(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(10))
    first, second = Inbox(), Inbox()
    channel = await broker.consume(queue, 6, first)
    deliveries = await first.wait_for(6)
    await channel.ack(deliveries[0])
    await first.wait_for(7)
    await channel.close()
    await publish_numbers(broker, topology, range(10, 12))
    await broker.consume(queue, 100, second)
    await second.wait_for(11)
    returned = [(body, True, 1) for body in in_decimal(range(1, 7))]
    assert history(second.deliveries) == returned + [(body, False, 0) for body in in_decimal(range(7, 12))]


async def test_every_hand_over_counts_as_a_delivery(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(3))
    for count in range(4):
        inbox = Inbox()
        channel = await broker.consume(queue, 3, inbox)
        await inbox.wait_for(3)
        assert history(inbox.deliveries) == [(body, count > 0, count) for body in in_decimal(range(3))]
        await channel.close()


async def test_the_delivery_count_is_no_part_of_the_properties(broker: Broker, topology: Topology) -> None:
    properties = Properties(message_id="m", headers={"mine": 1})
    await broker.publish(request(topology, "a", b"", properties))
    await broker.publish(request(topology, "a", b"", Properties()))
    queue = topology.queue_of(slot("a"))
    for _ in range(2):
        inbox = Inbox()
        channel = await broker.consume(queue, 2, inbox)
        deliveries = await inbox.wait_for(2)
        await channel.close()
    assert [delivery.delivery_count for delivery in deliveries] == [1, 1]
    assert [delivery.properties for delivery in deliveries] == [properties, Properties()]


async def test_only_the_first_of_two_consumers_is_active_and_the_second_takes_over_in_order(
    connect: Connect, topology: Topology
) -> None:
    primary, standby = await connect(), await connect()
    queue = topology.queue_of(slot("a"))
    first, second = Inbox(), Inbox()
    active = await primary.consume(queue, 50, first)
    await standby.consume(queue, 200, second)
    await publish_numbers(primary, topology, range(100))
    await first.wait_for(50)
    await active.ack(first.deliveries[0])
    await first.wait_for(51)
    assert second.deliveries == []
    await active.close()
    await second.wait_for(99)
    returned = [(body, True, 1) for body in in_decimal(range(1, 51))]
    assert history(second.deliveries) == returned + [(body, False, 0) for body in in_decimal(range(51, 100))]


async def test_a_waiting_consumer_that_leaves_changes_nothing_for_the_active_one(
    broker: Broker, topology: Topology
) -> None:
    queue = topology.queue_of(slot("a"))
    first, third = Inbox(), Inbox()
    active = await broker.consume(queue, 10, first)
    waiting = await broker.consume(queue, 10, Inbox())
    await broker.consume(queue, 10, third)
    await waiting.close()
    await publish_numbers(broker, topology, range(3))
    await first.wait_for(3)
    await active.close()
    await third.wait_for(3)
    assert third.bodies == in_decimal(range(3))


async def test_wait_closed_returns_when_the_channel_is_closed_and_close_may_be_repeated(
    broker: Broker, topology: Topology
) -> None:
    channel = await broker.consume(topology.shard_queue(0), 1, Inbox())
    assert channel.is_open
    assert channel.queue == topology.shard_queue(0)
    waiting = asyncio.create_task(channel.wait_closed())
    await channel.close()
    await channel.close()
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting
    assert not channel.is_open


async def test_wait_closed_returns_when_the_queue_is_deleted(broker: Broker, topology: Topology) -> None:
    queue = topology.shard_queue(0)
    channels = [await broker.consume(queue, 1, Inbox()) for _ in range(2)]
    await broker.delete_queue(queue)
    async with asyncio.timeout(WAIT_SECONDS):
        for channel in channels:
            await channel.wait_closed()
    assert not any(channel.is_open for channel in channels)
    await channels[0].close()


async def test_closing_a_broker_closes_its_own_channels_only(connect: Connect, topology: Topology) -> None:
    going, staying = await connect(), await connect()
    queue = await publish_numbers(staying, topology, range(3))
    first, second = Inbox(), Inbox()
    lost = await going.consume(queue, 10, first)
    kept = await staying.consume(queue, 10, second)
    await first.wait_for(3)
    await going.close()
    async with asyncio.timeout(WAIT_SECONDS):
        await lost.wait_closed()
    await second.wait_for(3)
    assert second.bodies == in_decimal(range(3))
    assert kept.is_open


async def test_consuming_an_unknown_queue_is_unavailable(broker: Broker, topology: Topology) -> None:
    with pytest.raises(BrokerUnavailable):
        await broker.consume(topology.reply_prefix + "one", 1, Inbox())


async def test_queue_state_counts_ready_messages_and_the_consumers_that_are_served(
    broker: Broker, topology: Topology
) -> None:
    queue = await publish_numbers(broker, topology, range(5))
    inbox = Inbox()
    channels = [await broker.consume(queue, 2, inbox) for _ in range(2)]
    await inbox.wait_for(2)
    await holds_messages(broker, queue, 3)
    state = await broker.queue_state(queue)
    assert state is not None
    assert state.consumers == 1
    for channel in reversed(channels):
        await channel.close()
    await holds_messages(broker, queue, 5)


async def test_deliveries_are_not_made_inside_the_publishing_task(broker: Broker, topology: Topology) -> None:
    tasks = []
    inbox = Inbox()

    def deliver(delivery: Delivery) -> None:
        tasks.append(asyncio.current_task())
        inbox(delivery)

    await broker.consume(topology.queue_of(slot("a")), 10, deliver)
    await publish_numbers(broker, topology, range(3))
    await inbox.wait_for(3)
    assert asyncio.current_task() not in tasks


async def test_a_channel_is_verified_while_it_is_open_and_not_once_it_is_closed(
    broker: Broker, topology: Topology
) -> None:
    queue = await publish_numbers(broker, topology, range(5))
    inbox = Inbox()
    channel = await broker.consume(queue, 3, inbox)
    await inbox.wait_for(3)
    assert await channel.verify()
    assert channel.is_open
    assert len(inbox.bodies) == 3, "the question must not change the prefetch"
    await channel.close()
    assert not await channel.verify()


async def test_only_one_consumes_a_queue_alone_and_what_it_leaves_comes_in_order_to_the_next(
    connect: Connect, topology: Topology
) -> None:
    first, second = await connect(), await connect()
    queue = await publish_numbers(first, topology, range(6))
    seen, again = Inbox(), Inbox()
    channel = await first.consume_alone(topology.dead, 1, Inbox())
    await channel.close()

    channel = await first.consume_alone(queue, 4, seen)
    await seen.wait_for(4)
    with pytest.raises(QueueTaken):
        await second.consume_alone(queue, 4, again)
    await channel.ack(seen.deliveries[1])
    await channel.close()

    async def takes_it() -> bool:
        try:
            await second.consume_alone(queue, 10, again)
        except QueueTaken:
            return False
        return True

    await eventually(takes_it, "the queue is free again")
    await again.wait_for(5)
    assert again.bodies == [b"0", b"2", b"3", b"4", b"5"]
    with pytest.raises(QueueTaken):
        await first.consume_alone(queue, 4, seen)
    await second.close()


async def test_a_queue_is_free_again_when_who_had_it_alone_is_gone(connect: Connect, topology: Topology) -> None:
    first, second = await connect(), await connect()
    await first.consume_alone(topology.dead, 1, Inbox())
    await first.close()

    async def takes_it() -> bool:
        try:
            await second.consume_alone(topology.dead, 1, Inbox())
        except QueueTaken:
            return False
        return True

    await eventually(takes_it, "the queue is free again")


async def test_consuming_a_missing_queue_alone_is_unavailable_and_leaves_no_lock(
    connect: Connect, topology: Topology
) -> None:
    for broker in (await connect(), await connect()):
        with pytest.raises(BrokerUnavailable) as raised:
            await broker.consume_alone(topology.dead + ".missing", 1, Inbox())
        assert not isinstance(raised.value, QueueTaken)
