"""Deliveries that RabbitMQ sends behind the close of their channel reach no consumer that comes after."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiormq
import pytest

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.rabbitmq import RabbitMQBroker, RabbitMQChannel
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox, holds_messages
from tests.services.late_frames import LateFrames

BODIES = [b"one", b"two", b"three"]


@pytest.fixture
async def late(amqp_url: str) -> AsyncIterator[LateFrames]:
    async with LateFrames("127.0.0.1", urlsplit(amqp_url).port or 5672) as proxy:
        yield proxy


async def test_what_comes_late_for_a_closed_channel_reaches_no_other(
    amqp_url: str, broker: RabbitMQBroker, topology: Topology, late: LateFrames
) -> None:
    queue = topology.shard_queue(0)
    for body in BODIES:
        await broker.publish(Outgoing("", queue, body, Properties(message_id=body.decode())))
    consuming = RabbitMQBroker(urlsplit(amqp_url)._replace(netloc=f"127.0.0.1:{late.port}").geturl())
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
    await consuming.close()
    assert late.late == [1, 1]
    assert after.bodies == BODIES
