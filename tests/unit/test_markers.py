"""A marker is reported once everything delivered before it is settled, and is never in the way of the next one."""

import asyncio

from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.errors import BrokerUnavailable
from interfaces.markers import Markers, is_marker, marker
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import Inbox, eventually, request

TOPOLOGY = Topology("ns", shards=1)
QUEUE = TOPOLOGY.queue_of(slot("ctx"))


async def opened() -> MemoryBroker:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    await broker.apply(TOPOLOGY)
    return broker


async def test_a_marker_waits_for_what_came_before_it_and_not_for_what_came_after() -> None:
    broker, inbox, passed = await opened(), Inbox(), list[str]()

    async def note(queue: str) -> None:
        passed.append(queue)

    for message in (request(TOPOLOGY, "ctx"), marker(QUEUE, TOPOLOGY), request(TOPOLOGY, "ctx")):
        await broker.publish(message)
    channel = await broker.consume(QUEUE, 10, inbox)
    before, mark, after = await inbox.wait_for(3)
    assert [is_marker(delivery) for delivery in inbox.deliveries] == [False, True, False]
    markers = Markers(note)
    markers.take(mark)
    await asyncio.sleep(0)
    assert not passed
    await channel.ack(before)

    async def is_settled() -> bool:
        return list(channel.unsettled) == [after.tag]

    await eventually(is_settled, "the marker is acknowledged")
    assert passed == [QUEUE]


async def test_a_marker_that_cannot_be_reported_comes_again() -> None:
    broker, inbox = await opened(), Inbox()

    async def fail(queue: str) -> None:
        raise BrokerUnavailable("away")

    await broker.publish(marker(QUEUE, TOPOLOGY))
    channel = await broker.consume(QUEUE, 10, inbox)
    [mark] = await inbox.wait_for(1)
    Markers(fail).take(mark)
    await channel.wait_closed()
    again = Inbox()
    await broker.consume(QUEUE, 10, again)
    assert is_marker((await again.wait_for(1))[0])


async def test_markers_that_are_waited_for_no_more_stay_unacknowledged() -> None:
    broker, inbox, passed = await opened(), Inbox(), list[str]()

    async def note(queue: str) -> None:
        passed.append(queue)

    for message in (request(TOPOLOGY, "ctx"), marker(QUEUE, TOPOLOGY)):
        await broker.publish(message)
    channel = await broker.consume(QUEUE, 10, inbox)
    _, mark = await inbox.wait_for(2)
    markers = Markers(note)
    markers.take(mark)
    await markers.close()
    assert (passed, len(channel.unsettled)) == ([], 2)
