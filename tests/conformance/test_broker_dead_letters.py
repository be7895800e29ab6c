"""What every broker does by itself with requests that expire or are delivered too often."""

from datetime import UTC, datetime

import pytest

from interfaces import topology as topology_module
from interfaces.brokers import Broker, Properties
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import Inbox, holds_messages, in_decimal, publish_numbers, request

pytest_plugins = ["tests.conformance.broker_fixtures"]


async def test_an_expired_message_becomes_a_dead_letter_that_says_so(broker: Broker, topology: Topology) -> None:
    properties = Properties(message_id="m", headers={"mine": 1}, expiration="50", delivery_mode=2)
    before = datetime.now(UTC).replace(microsecond=0)
    await broker.publish(request(topology, "a", b"late", properties))
    inbox = Inbox()
    await broker.consume(topology.dead, 1, inbox)
    [letter] = await inbox.wait_for(1)
    assert (letter.body, letter.exchange, letter.routing_key) == (b"late", topology.dead, str(slot("a")))
    assert letter.properties.message_id == "m"
    assert letter.properties.expiration is None
    assert letter.properties.headers is not None
    assert letter.properties.headers["mine"] == 1
    [death] = letter.properties.headers["x-death"]
    assert before <= death.pop("time") <= datetime.now(UTC)
    assert death == {
        "count": 1,
        "reason": "expired",
        "queue": topology.queue_of(slot("a")),
        "exchange": topology.requests_exchange,
        "routing-keys": [str(slot("a"))],
        "original-expiration": "50",
    }
    await holds_messages(broker, topology.queue_of(slot("a")), 0)


async def test_a_message_expires_only_at_the_head_of_its_queue(broker: Broker, topology: Topology) -> None:
    queue = await publish_numbers(broker, topology, range(1))
    await broker.publish(request(topology, "a", b"late", Properties(expiration="1")))
    await broker.publish(request(topology, "a", b"later", Properties(expiration="3600000")))
    inbox, dead = Inbox(), Inbox()
    await broker.consume(topology.dead, 1, dead)
    await holds_messages(broker, queue, 3)
    await broker.consume(queue, 1, inbox)
    [delivery] = await inbox.wait_for(1)
    assert delivery.body == b"0"
    await dead.wait_for(1)
    assert dead.bodies == [b"late"]
    await delivery.channel.ack(delivery)
    await inbox.wait_for(2)
    assert inbox.bodies == [b"0", b"later"]


async def test_a_message_delivered_too_often_becomes_a_dead_letter_that_says_so(
    broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology_module, "DELIVERY_LIMIT", 1)
    topology = Topology(namespace, shards=1)
    await broker.apply(topology)
    queue = await publish_numbers(broker, topology, range(3))
    for _ in range(2):
        inbox = Inbox()
        channel = await broker.consume(queue, 10, inbox)
        await inbox.wait_for(3)
        await channel.close()
    dead = Inbox()
    await broker.consume(topology.dead, 10, dead)
    await dead.wait_for(3)
    assert dead.bodies == in_decimal(range(3))
    for letter in dead.deliveries:
        assert letter.properties.headers is not None
        [death] = letter.properties.headers["x-death"]
        assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", queue, 1)
