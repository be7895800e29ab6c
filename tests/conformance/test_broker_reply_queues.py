"""What every broker promises about reply queues: whom a topic reaches, who may consume, and when the queue goes."""

from datetime import timedelta

import pytest

from interfaces.brokers import Broker, Outgoing, Properties, QueueState
from interfaces.errors import Unroutable
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox, eventually, new_properties

pytest_plugins = ["tests.conformance.broker_fixtures"]

MINUTE = timedelta(minutes=1)


async def test_a_reply_reaches_the_queues_whose_topic_matches_once_each(broker: Broker, topology: Topology) -> None:
    one, two = topology.reply_prefix + "one", topology.reply_prefix + "two"
    replies = topology.replies_exchange
    await broker.declare_reply_queue(one, MINUTE, [(replies, "web.#"), (replies, "*.a"), (replies, "#.z")])
    await broker.declare_reply_queue(two, MINUTE, [(replies, "telegram.*")])
    inboxes = {one: Inbox(), two: Inbox()}
    for queue, inbox in inboxes.items():
        await broker.consume(queue, 100, inbox)
    keys = ["web.a", "web.a.b", "web", "cli.a", "z", "x.y.z", "telegram.a", "telegram.b"]
    for key in keys:
        await broker.publish(Outgoing(replies, key, key.encode(), new_properties()))
    for key in ("telegram.a.b", "webb.b", "cli.a.b"):
        with pytest.raises(Unroutable):
            await broker.publish(Outgoing(replies, key, b"", new_properties()))
    await inboxes[one].wait_for(7)
    await inboxes[two].wait_for(2)
    assert inboxes[one].bodies == [b"web.a", b"web.a.b", b"web", b"cli.a", b"z", b"x.y.z", b"telegram.a"]
    assert inboxes[two].bodies == [b"telegram.a", b"telegram.b"]


@pytest.mark.parametrize("replicated", [False, True])
async def test_a_reply_queue_is_reached_by_its_name_on_the_default_exchange(
    broker: Broker, topology: Topology, replicated: bool
) -> None:
    name = topology.reply_prefix + "one"
    for _ in range(2):
        await broker.declare_reply_queue(name, MINUTE, replicated=replicated)
    await broker.publish(Outgoing("", name, b"reply", Properties()))
    inbox = Inbox()
    await broker.consume(name, 1, inbox)
    [delivery] = await inbox.wait_for(1)
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"reply", "", name)


async def test_a_reply_queue_goes_when_nobody_has_consumed_it_for_its_time(broker: Broker, topology: Topology) -> None:
    consumed, unused = topology.reply_prefix + "one", topology.reply_prefix + "two"
    for name in (consumed, unused):
        await broker.declare_reply_queue(name, timedelta(milliseconds=1000), [(topology.replies_exchange, name)])
        if name == consumed:
            channel = await broker.consume(consumed, 1, Inbox())

    # Publishing is no use of a queue; asking for its state is one on RabbitMQ, so the wait must not ask.
    async def gone(name: str) -> bool:
        try:
            await broker.publish(Outgoing(topology.replies_exchange, name, b"", new_properties()))
        except Unroutable:
            return True
        return False

    await eventually(lambda: gone(unused), "the unused reply queue is gone")
    assert not await gone(consumed)
    await channel.close()
    await eventually(lambda: gone(consumed), "the reply queue is gone after its consumer")


async def test_consumers_without_single_activity_share_a_queue(broker: Broker, topology: Topology) -> None:
    name = topology.reply_prefix + "one"
    await broker.declare_reply_queue(name, MINUTE, [(topology.replies_exchange, "#")])
    inboxes = [Inbox(), Inbox()]
    for inbox in inboxes:
        await broker.consume(name, 1, inbox)
    assert await broker.queue_state(name) == QueueState(messages=0, consumers=2)
    for _ in range(2):
        await broker.publish(Outgoing(topology.replies_exchange, "web.a", b"", new_properties()))
    for inbox in inboxes:
        await inbox.wait_for(1)
