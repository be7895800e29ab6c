"""The same request published three times under one id is one turn with three identical replies."""

import asyncio
import uuid
from collections.abc import Sequence

from interfaces.brokers import Outgoing
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.envelope import encode_request
from interfaces.messages import Message
from interfaces.reply_bodies import Reply, decode_reply
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.wire import Seen, Wire
from worker import records
from worker.stores.redis import RedisStore

BOT = "tests.bots.counting:answer"
CTX = "dialog"
TIMES = 3


def new_request(topology: Topology, text: str = "hello") -> Outgoing:
    return encode_request(topology, Message(text), CTX, request_id=uuid.uuid4().hex)


async def replies_on(wire: Wire, queue: str, count: int) -> list[Seen]:
    """Take the replies once there are `count`."""

    async def arrived() -> bool:
        return await wire.count(queue) >= count

    await eventually(arrived, f"{count} replies")
    return await wire.take_all(queue)


def the_one_reply(seen: Sequence[Seen], request: Outgoing) -> Reply:
    """The reply that all of the messages are; they differ in nothing."""
    assert len(seen) == TIMES
    assert {reply.properties.correlation_id for reply in seen} == {request.properties.message_id}
    assert len({reply.properties.message_id for reply in seen}) == 1
    assert seen[0].properties.message_id
    assert len({reply.body for reply in seen}) == 1
    return decode_reply(seen[0].body)


async def assert_one_turn(reply: Reply, store: RedisStore, client: BrokerClient) -> None:
    """The reply is that of turn 1, Redis holds this turn alone, and the next one counts two."""
    assert (reply.status, reply.turn, reply.message and reply.message.text) == ("ok", 1, "1: hello")
    loaded = await store.peek(CTX, 10)
    assert loaded is not None
    assert (loaded.version, list(loaded.turns)) == (1, [1])
    assert records.read_context(CTX, loaded.version, loaded.main, loaded.turns).misc == {"applied": ["hello"]}
    following = await client.ask("again", CTX)
    assert following.message is not None
    assert (following.turn, following.message.text) == (2, "2: again")


async def test_published_at_the_same_time(
    topology: Topology, amqp_url: str, wire: Wire, client: BrokerClient, store: RedisStore, start_worker: StartWorker
) -> None:
    await (await start_worker(BOT)).ready()
    replies = await wire.listen(topology.replies_exchange)
    request = new_request(topology)
    # One connection each: it is different publishers that send one request at the same time.
    publishers = [RabbitMQBroker(amqp_url) for _ in range(TIMES)]
    try:
        await asyncio.gather(*(publisher.open() for publisher in publishers))
        await asyncio.gather(*(publisher.publish(request) for publisher in publishers))
        reply = the_one_reply(await replies_on(wire, replies, TIMES), request)
    finally:
        await asyncio.gather(*(publisher.close() for publisher in publishers))
    await assert_one_turn(reply, store, client)
    assert await wire.count(replies) == 0


async def test_published_again_after_each_reply(
    topology: Topology,
    broker: RabbitMQBroker,
    wire: Wire,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
) -> None:
    await (await start_worker(BOT)).ready()
    replies = await wire.listen(topology.replies_exchange)
    request = new_request(topology)
    seen: list[Seen] = []
    for _ in range(TIMES):
        await broker.publish(request)
        seen += await replies_on(wire, replies, 1)
    await assert_one_turn(the_one_reply(seen, request), store, client)


async def test_published_again_after_a_restart_of_the_worker(
    topology: Topology,
    broker: RabbitMQBroker,
    wire: Wire,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
) -> None:
    replies = await wire.listen(topology.replies_exchange)
    request = new_request(topology)
    seen: list[Seen] = []
    for _ in range(TIMES):
        worker = await (await start_worker(BOT)).ready()
        await broker.publish(request)
        seen += await replies_on(wire, replies, 1)
        assert await worker.stop() == 0, worker.log
    await start_worker(BOT)
    await assert_one_turn(the_one_reply(seen, request), store, client)


async def test_published_again_after_later_turns_of_the_same_context(
    topology: Topology, broker: RabbitMQBroker, wire: Wire, client: BrokerClient, start_worker: StartWorker
) -> None:
    await (await start_worker(BOT)).ready()
    replies = await wire.listen(topology.replies_exchange)
    request = new_request(topology)
    seen: list[Seen] = []
    for number in range(TIMES):
        await broker.publish(request)
        seen += await replies_on(wire, replies, 1)
        later = await client.ask("later", CTX)
        assert later.turn == number + 2
    assert the_one_reply(seen, request).turn == 1
