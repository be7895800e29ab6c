"""Deliveries that RabbitMQ sends behind the close of their channel reach no consumer that comes after."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiormq
import pytest

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.rabbitmq import RabbitMQBroker, RabbitMQChannel
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox, holds_messages
from tests.integration.faults import opened
from tests.integration.redis_probes import through
from tests.services.late_frames import LateFrames

BODIES = [b"one", b"two", b"three"]


@pytest.fixture
async def late(amqp_url: str) -> AsyncIterator[LateFrames]:
    server = urlsplit(amqp_url)
    async with LateFrames(server.hostname or "127.0.0.1", server.port or 5672) as proxy:
        yield proxy


@pytest.fixture
async def consuming(amqp_url: str, late: LateFrames) -> AsyncIterator[RabbitMQBroker]:
    """A broker that is reached by way of `late`."""
    async with opened(through(late, amqp_url)) as broker:
        yield broker


async def test_what_comes_late_for_a_closed_channel_reaches_no_other(
    broker: RabbitMQBroker, consuming: RabbitMQBroker, topology: Topology, late: LateFrames
) -> None:
    queue = topology.shard_queue(0)
    for body in BODIES:
        await broker.publish(Outgoing("", queue, body, Properties(message_id=body.decode())))
    before, after = Inbox(), Inbox()
    channel = await consuming.consume(queue, 10, before)
    await before.wait_for(len(BODIES))
    assert isinstance(channel, RabbitMQChannel)
    assert isinstance(channel._channel, aiormq.Channel)
    await channel._channel.basic_ack(99)  # Nothing was delivered under it: RabbitMQ closes the channel.
    await channel.wait_closed()

    channel = await consuming.consume(queue, 10, after)
    await after.wait_for(len(BODIES))
    for delivery in after.deliveries:
        await channel.ack(delivery)
    await channel.close()
    await holds_messages(broker, queue, 0)
    assert late.late == [1, 1]
    assert after.bodies == BODIES
