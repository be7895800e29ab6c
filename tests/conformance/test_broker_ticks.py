"""Many publishes and acknowledgements in one tick of the event loop: each has its own outcome, as if it were alone."""

import asyncio
import random

import pytest

from interfaces.brokers import Broker, Outgoing, Properties
from interfaces.errors import BrokerUnavailable, Unroutable
from interfaces.topology import Topology
from tests.conformance.broker_probes import WAIT_SECONDS, Inbox, holds_messages, in_decimal, publish_numbers

pytest_plugins = ["tests.conformance.broker_fixtures"]


def to_queue(queue: str, body: bytes, number: int) -> Outgoing:
    return Outgoing("", queue, body, Properties(message_id=f"m{number}", delivery_mode=2))


async def test_of_publishes_in_one_tick_those_that_nobody_takes_fail_alone(broker: Broker, topology: Topology) -> None:
    queue = topology.shard_queue(0)
    outcomes = await asyncio.gather(
        *(broker.publish(to_queue(queue if n % 3 else "nowhere", b"%d" % n, n)) for n in range(300)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Unroutable) for outcome in outcomes] == [n % 3 == 0 for n in range(300)]
    inbox = Inbox()
    await broker.consume(queue, 1000, inbox)
    await inbox.wait_for(200)
    assert inbox.bodies == in_decimal(n for n in range(300) if n % 3)


async def test_a_publish_given_up_in_the_tick_it_was_asked_for_is_not_sent(broker: Broker, topology: Topology) -> None:
    queue = topology.shard_queue(0)
    tasks = [asyncio.create_task(broker.publish(to_queue(queue, b"%d" % n, n))) for n in range(10)]
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [True, False] * 5
    await broker.publish(to_queue(queue, b"10", 10))
    inbox = Inbox()
    await broker.consume(queue, 100, inbox)
    await inbox.wait_for(6)
    assert inbox.bodies == in_decimal([1, 3, 5, 7, 9, 10])


async def test_a_missing_exchange_fails_what_is_on_its_way_and_nothing_after_it(
    broker: Broker, topology: Topology
) -> None:
    queue = topology.shard_queue(0)
    astray = Outgoing("no such exchange", "key", b"", Properties(message_id="astray"))
    outcomes = await asyncio.gather(
        broker.publish(astray),
        *(broker.publish(to_queue(queue, b"%d" % n, n)) for n in range(20)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Unroutable)
    assert all(outcome is None or isinstance(outcome, BrokerUnavailable) for outcome in outcomes[1:])
    async with asyncio.timeout(WAIT_SECONDS):
        await broker.publish(to_queue(queue, b"after", 99))


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_order_of_acknowledgements_exactly_the_rest_comes_again(
    broker: Broker, topology: Topology, seed: int
) -> None:
    # Of more than 32 that a quorum queue has not yet noted, RabbitMQ forgets the rest when the channel is closed.
    queue = await publish_numbers(broker, topology, range(40))
    first, second = Inbox(), Inbox()
    channel = await broker.consume(queue, 1000, first)
    deliveries = await first.wait_for(40)
    chance = random.Random(seed)
    settled = chance.sample(range(40), 30)
    for number in settled:
        await channel.ack(deliveries[number])
        if chance.random() < 0.2:
            await asyncio.sleep(0)  # the end of a tick
    await channel.close()
    await broker.consume(queue, 1000, second)
    await second.wait_for(10)
    assert second.bodies == in_decimal(sorted(set(range(40)) - set(settled)))
    await holds_messages(broker, queue, 0)
