"""What every broker promises those who declare and publish: routing, order, outcomes, and bytes left as they are."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interfaces.brokers import Broker, Outgoing, Properties
from interfaces.errors import BrokerRefused, BrokerUnavailable, PublishNacked, Unroutable
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import (
    Connect,
    Inbox,
    eventually,
    holds_messages,
    in_decimal,
    publish_numbers,
    request,
)

pytest_plugins = ["tests.conformance.broker_fixtures"]

CONTEXTS = [f"context {number} ☎" for number in range(200)]
MINUTE = timedelta(minutes=1)


async def assert_each_request_reaches_its_queue(broker: Broker, topology: Topology) -> None:
    inboxes = {queue: Inbox() for queue in topology.shard_queues}
    for queue, inbox in inboxes.items():
        await broker.consume(queue, 2 * len(CONTEXTS), inbox)
    await asyncio.gather(*(broker.publish(request(topology, ctx_id, ctx_id.encode())) for ctx_id in CONTEXTS))
    for queue, inbox in inboxes.items():
        expected = sorted(ctx_id.encode() for ctx_id in CONTEXTS if topology.queue_of(slot(ctx_id)) == queue)
        await inbox.wait_for(len(expected))
        await holds_messages(broker, queue, 0)
        assert sorted(inbox.bodies) == expected


async def test_applying_a_topology_again_changes_nothing(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(3))
    await broker.apply(topology)
    await holds_messages(broker, queue, 3)


async def test_applying_another_max_length_is_refused_and_names_the_queue(broker: Broker, topology: Topology) -> None:
    other = Topology(topology.namespace, topology.shards, max_length=topology.max_length + 1)
    with pytest.raises(BrokerRefused, match=re.escape(topology.shard_queue(0)[:-3]) + r"\d{3}"):
        await broker.apply(other)


@pytest.mark.parametrize("shards", [1, 2, 5, 8])
async def test_applying_another_number_of_shards_is_refused_and_moves_no_slot(
    broker: Broker, topology: Topology, shards: int
) -> None:
    with pytest.raises(BrokerRefused):
        await broker.apply(Topology(topology.namespace, shards))
    await assert_each_request_reaches_its_queue(broker, topology)


async def test_a_request_reaches_exactly_the_queue_of_its_slot(broker: Broker, topology: Topology) -> None:
    await assert_each_request_reaches_its_queue(broker, topology)


async def test_messages_published_one_after_the_other_keep_their_order_in_each_queue(
    broker: Broker, topology: Topology
) -> None:
    for number in range(100):
        for ctx_id in ("a", "b"):
            await broker.publish(request(topology, ctx_id, b"%d" % number))
    assert topology.queue_of(slot("a")) != topology.queue_of(slot("b"))
    for ctx_id in ("a", "b"):
        inbox = Inbox()
        await broker.consume(topology.queue_of(slot(ctx_id)), 100, inbox)
        await inbox.wait_for(100)
        assert inbox.bodies == in_decimal(range(100))


async def test_concurrent_publishes_are_all_confirmed_and_each_publisher_keeps_its_order(
    broker: Broker, topology: Topology
) -> None:
    publishers, each = 20, 25

    async def publish(publisher: int) -> None:
        for number in range(each):
            await broker.publish(request(topology, "a", b"%d %d" % (publisher, number)))

    await asyncio.gather(*(publish(publisher) for publisher in range(publishers)))
    inbox = Inbox()
    await broker.consume(topology.queue_of(slot("a")), publishers * each, inbox)
    await inbox.wait_for(publishers * each)
    for publisher in range(publishers):
        prefix = b"%d " % publisher
        own = [body for body in inbox.bodies if body.startswith(prefix)]
        assert own == [prefix + number for number in in_decimal(range(each))]


async def test_a_confirmed_message_is_in_its_queue(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(1))
    state = await broker.queue_state(queue)
    assert state is not None
    assert (state.messages, state.consumers) == (1, 0)


@pytest.mark.parametrize("target", ["requests", "replies", "default"])
async def test_a_mandatory_message_that_no_queue_is_bound_for_raises(
    broker: Broker, topology: Topology, target: str
) -> None:
    exchange = {"requests": topology.requests_exchange, "replies": topology.replies_exchange, "default": ""}[target]
    with pytest.raises(Unroutable):
        await broker.publish(Outgoing(exchange, "nowhere", b"", Properties(message_id="m")))
    await publish_numbers(broker, topology, range(1))


async def test_a_message_that_is_not_mandatory_may_reach_nobody(broker: Broker, topology: Topology) -> None:
    await broker.publish(Outgoing(topology.replies_exchange, "nobody", b"", Properties(), mandatory=False))


FULL = Properties(
    content_type="application/json",
    content_encoding="gzip",
    headers={
        "text": "☎",
        "empty": "",
        "number": -(2**40),
        "float": 0.5,
        "yes": True,
        "nothing": None,
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "list": [1, "two", [3], {"four": [5]}],
        "table": {"table": {"table": {"deep": "down"}}, "empty": {}},
    },
    delivery_mode=2,
    priority=0,
    correlation_id="c",
    reply_to="reply",
    expiration="3600000",
    message_id="m",
    timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    message_type="t",
    app_id="app",
)


@pytest.mark.parametrize(
    "properties",
    [
        Properties(),
        Properties(message_id="m"),
        Properties(headers={"x-mine": 1}),
        Properties(delivery_mode=1),
        Properties(delivery_mode=2),
        FULL,
    ],
    ids=["none", "id", "headers", "transient", "persistent", "all"],
)
async def test_properties_arrive_as_published_and_absent_ones_absent(
    broker: Broker, topology: Topology, properties: Properties
) -> None:
    await broker.publish(request(topology, "a", b"body", properties))
    inbox = Inbox()
    await broker.consume(topology.queue_of(slot("a")), 1, inbox)
    [delivery] = await inbox.wait_for(1)
    assert delivery.properties == properties
    assert (delivery.exchange, delivery.routing_key) == (topology.requests_exchange, str(slot("a")))
    assert (delivery.redelivered, delivery.delivery_count) == (False, 0)


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\xff\xfe\xc3\x28", bytes(range(256)) * 4096], ids=["empty", "zero", "not UTF-8", "1 MiB"]
)
async def test_a_body_arrives_byte_for_byte(broker: Broker, topology: Topology, body: bytes) -> None:
    await broker.publish(request(topology, "a", body))
    inbox = Inbox()
    await broker.consume(topology.queue_of(slot("a")), 1, inbox)
    [delivery] = await inbox.wait_for(1)
    assert delivery.body == body


async def test_headers_changed_after_publishing_do_not_change_the_message(broker: Broker, topology: Topology) -> None:
    headers: dict[str, Any] = {"list": [1]}
    await broker.publish(request(topology, "a", b"", Properties(headers=headers)))
    headers["list"].append(2)
    inbox = Inbox()
    await broker.consume(topology.queue_of(slot("a")), 1, inbox)
    [delivery] = await inbox.wait_for(1)
    assert delivery.properties.headers == {"list": [1]}


async def test_a_full_queue_refuses_until_there_is_room_again(broker: Broker, namespace: str) -> None:
    topology = Topology(namespace, shards=1, max_length=5)
    await broker.apply(topology)
    queue = topology.shard_queue(0)

    async def overfill() -> None:
        for _ in range(100):
            await broker.publish(request(topology, "a"))

    with pytest.raises(PublishNacked):
        await overfill()
    state = await broker.queue_state(queue)
    assert state is not None
    assert state.messages >= topology.max_length

    inbox = Inbox()
    channel = await broker.consume(queue, 100, inbox)
    for delivery in list(await inbox.wait_for(state.messages)):
        await channel.ack(delivery)

    async def accepted() -> bool:
        try:
            await broker.publish(request(topology, "a"))
        except PublishNacked:
            return False
        return True

    await eventually(accepted, "a publish to the emptied queue is confirmed")


async def test_deleting_a_queue_may_be_repeated(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(3))
    await broker.delete_queue(queue)
    await broker.delete_queue(queue)
    assert await broker.queue_state(queue) is None
    with pytest.raises(Unroutable):
        await publish_numbers(broker, topology, range(1))


async def test_an_unknown_queue_has_no_state(broker: Broker, topology: Topology) -> None:
    assert await broker.queue_state(topology.reply_prefix + "one") is None


async def test_a_closed_broker_is_unavailable_and_may_be_closed_again(connect: Connect, topology: Topology) -> None:
    broker = await connect()
    await broker.close()
    await broker.close()
    for attempt in (
        broker.apply(topology),
        broker.publish(request(topology, "a")),
        broker.consume(topology.shard_queue(0), 1, Inbox()),
        broker.queue_state(topology.shard_queue(0)),
        broker.declare_reply_queue(topology.reply_prefix + "one", MINUTE),
        broker.delete_queue(topology.shard_queue(0)),
    ):
        with pytest.raises(BrokerUnavailable):
            await attempt
