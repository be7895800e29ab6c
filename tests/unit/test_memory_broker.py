"""What only the embedded broker has: servers by name within the process, outliving their event loops."""

import asyncio
from uuid import uuid4

from interfaces.brokers import Outgoing, Properties, QueueState
from interfaces.brokers.memory import MemoryBroker, memory_server
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox

TOPOLOGY = Topology(shards=1)
QUEUE = TOPOLOGY.shard_queue(0)
MESSAGE = Outgoing(TOPOLOGY.requests_exchange, "0", b"body", Properties())


async def test_brokers_of_one_name_share_a_server_and_others_do_not() -> None:
    name = uuid4().hex
    one, same, other = (MemoryBroker(memory_server(server)) for server in (name, name, name + "other"))
    for broker in (one, same, other):
        await broker.open()
    await one.apply(TOPOLOGY)
    await one.publish(MESSAGE)
    assert await same.queue_state(QUEUE) == QueueState(messages=1, consumers=0)
    assert await other.queue_state(QUEUE) is None


def test_messages_outlive_the_event_loop_that_published_them() -> None:
    server = memory_server(uuid4().hex)

    async def publish() -> None:
        broker = MemoryBroker(server)
        await broker.open()
        await broker.apply(TOPOLOGY)
        await broker.publish(MESSAGE)

    async def receive() -> list[bytes]:
        broker = MemoryBroker(server)
        await broker.open()
        inbox = Inbox()
        await broker.consume(QUEUE, 1, inbox)
        await inbox.wait_for(1)
        return inbox.bodies

    asyncio.run(publish())
    assert asyncio.run(receive()) == [b"body"]
