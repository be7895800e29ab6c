"""The broker's messenger interface without a worker, as the seed uses interfaces: connected to any pipeline runner."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from typing import Any

import pytest

from interfaces.brokers import Broker, Delivery
from interfaces.brokers.opening import open_broker
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import BrokerRefused, BrokerUnavailable, StoreRefused
from interfaces.messages import Message
from interfaces.rabbitmq import IDLE_POLL_SECONDS, RabbitMQMessengerInterface
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import Inbox, holds_messages
from tests.integration.faults import SHARDS, until


@pytest.fixture(params=["memory", "rabbitmq"])
def url(request: pytest.FixtureRequest, amqp_url: str, namespace: str) -> str:
    return amqp_url if request.param == "rabbitmq" else f"memory://{namespace}"


@pytest.fixture
async def looking(url: str, namespace: str) -> AsyncIterator[tuple[Broker, Topology]]:
    """A second connection, and the topology declared."""
    broker, topology = open_broker(url), Topology(namespace, shards=SHARDS)
    await broker.open()
    await broker.apply(topology)
    yield broker, topology
    await broker.close()


@pytest.fixture
async def client(url: str, looking: tuple[Broker, Topology]) -> AsyncIterator[BrokerClient]:
    _, topology = looking
    async with BrokerClient(url, namespace=topology.namespace) as client:
        yield client


@pytest.fixture
def interface(url: str, looking: tuple[Broker, Topology]) -> RabbitMQMessengerInterface:
    _, topology = looking
    return RabbitMQMessengerInterface(url, topology=topology, drain_timeout=10)


class Runner:
    """A pipeline runner of its own kind: contexts in a dictionary, turns that can be held."""

    def __init__(self) -> None:
        self.contexts: dict[str, Context] = {}
        self.started: list[str] = []
        self.go = asyncio.Event()

    async def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        context = self.contexts.setdefault(str(ctx_id), Context(id=str(ctx_id)))
        text = message.text or ""
        self.started.append(text)
        if text == "held":
            await self.go.wait()
        if text == "fail":
            raise ZeroDivisionError("inside the runner")
        context.misc.update(update_ctx_misc or {})
        context.current_turn_id += 1
        context.requests[context.current_turn_id] = message
        context.responses[context.current_turn_id] = Message(f"ran {text}")
        return context


async def dead_letters(looking: tuple[Broker, Topology], count: int) -> list[Delivery]:
    broker, topology = looking
    await holds_messages(broker, topology.dead, count)
    inbox = Inbox()
    await broker.consume(topology.dead, 100, inbox)
    return await inbox.wait_for(count) if count else []


async def test_it_answers_with_what_the_runner_returns(
    interface: RabbitMQMessengerInterface, client: BrokerClient, looking: tuple[Broker, Topology]
) -> None:
    connected = asyncio.create_task(interface.connect(Runner()))
    replies = [await client.ask(str(n), ("any", "hashable"), update_ctx_misc={f"key {n}": n}) for n in range(3)]
    interface.stop()
    await connected
    assert [reply.message and reply.message.text for reply in replies] == ["ran 0", "ran 1", "ran 2"]
    assert [reply.turn for reply in replies] == [1, 2, 3]
    assert replies[-1].misc == {"key 0": 0, "key 1": 1, "key 2": 2}
    broker, topology = looking
    for queue in topology.shard_queues:
        await holds_messages(broker, queue, 0)


async def test_a_loop_that_says_no_ends_it_after_the_running_turns(
    interface: RabbitMQMessengerInterface, client: BrokerClient
) -> None:
    runner = Runner()
    connected = asyncio.create_task(interface.connect(runner, loop=lambda: not runner.started))
    asking = asyncio.create_task(client.ask("held", "ctx"))
    await until(lambda: runner.started == ["held"], "the turn runs")
    await until(lambda: interface._stopping, "it stops")
    assert not connected.done()
    runner.go.set()
    await connected
    assert interface.unfinished == 0
    assert (await asking).turn == 1


async def test_a_loop_that_never_says_yes_takes_nothing(
    interface: RabbitMQMessengerInterface, client: BrokerClient, looking: tuple[Broker, Topology]
) -> None:
    runner = Runner()
    await client.send("untouched", "ctx")
    await interface.connect(runner, loop=lambda: False)
    assert runner.started == []
    broker, topology = looking
    states = [await broker.queue_state(queue) for queue in topology.shard_queues]
    assert sum(state.messages for state in states if state) == 1


async def test_cancelling_lets_running_turns_finish_and_is_raised_again(
    interface: RabbitMQMessengerInterface, client: BrokerClient
) -> None:
    runner = Runner()
    connected = asyncio.create_task(interface.connect(runner))
    asking = asyncio.create_task(client.ask("held", "ctx"))
    await until(lambda: runner.started == ["held"], "the turn runs")
    connected.cancel()
    await until(lambda: interface._stopping, "it stops")
    assert not connected.done()
    runner.go.set()
    with pytest.raises(asyncio.CancelledError):
        await connected
    assert interface.unfinished == 0
    assert (await asking).status == "ok"


async def test_cancelling_twice_gives_up_the_running_turns_and_they_come_again(
    interface: RabbitMQMessengerInterface, url: str, client: BrokerClient
) -> None:
    runner = Runner()
    connected = asyncio.create_task(interface.connect(runner))
    asking = asyncio.create_task(client.ask("held", "ctx"))
    await until(lambda: runner.started == ["held"], "the turn runs")
    connected.cancel()
    await until(lambda: interface._stopping, "it stops")
    connected.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connected
    assert interface.unfinished == 1
    runner.go.set()
    next_one = RabbitMQMessengerInterface(url, topology=interface.topology)
    connected = asyncio.create_task(next_one.connect(runner))
    assert (await asking).turn == 1
    next_one.stop()
    await connected
    assert runner.started == ["held", "held"]


async def test_a_runner_that_raises_makes_a_dead_letter_and_an_error_reply_and_others_are_answered(
    interface: RabbitMQMessengerInterface, client: BrokerClient, looking: tuple[Broker, Topology]
) -> None:
    connected = asyncio.create_task(interface.connect(Runner()))
    before, failed, after, other = await asyncio.gather(
        client.ask("before", "ctx"),
        client.ask("fail", "ctx", request_id="r-fail"),
        client.ask("after", "ctx"),
        client.ask("hello", "another"),
    )
    interface.stop()
    await connected
    assert (before.turn, after.turn, other.turn) == (1, 2, 1)
    assert failed.status == "error"
    assert failed.error is not None
    assert (failed.error.code, failed.error.detail) == ("handler-failed", "the bot failed")
    [letter] = await dead_letters(looking, 1)
    headers = letter.properties.headers or {}
    assert letter.properties.message_id == "r-fail"
    assert headers["x-switchboard-reason"] == "handler-failed"
    assert "inside the runner" in headers["x-switchboard-detail"]


async def test_a_runner_that_answers_for_another_context_makes_a_dead_letter_and_nobody_else_suffers(
    interface: RabbitMQMessengerInterface, client: BrokerClient, looking: tuple[Broker, Topology]
) -> None:
    async def confused(
        message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        answered = "somebody else" if message.text == "confuse" else str(ctx_id)
        return Context(id=answered, current_turn_id=1, requests={1: message}, responses={1: Message("hi")})

    connected = asyncio.create_task(interface.connect(confused))
    assert (await client.ask("confuse", "ctx")).status == "error"
    assert (await client.ask("hello", "ctx")).status == "ok"
    interface.stop()
    await connected
    [letter] = await dead_letters(looking, 1)
    assert "was its id changed" in (letter.properties.headers or {})["x-switchboard-detail"]


async def test_a_fatal_error_of_the_runner_ends_it_and_leaves_the_request(
    interface: RabbitMQMessengerInterface, client: BrokerClient, looking: tuple[Broker, Topology]
) -> None:
    async def refusing(
        message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        raise StoreRefused("no permission")

    await client.send("stays", "ctx")
    with pytest.raises(StoreRefused, match="no permission"):
        await interface.connect(refusing)
    broker, topology = looking
    await holds_messages(broker, topology.queue_of(slot("ctx")), 1)
    assert await dead_letters(looking, 0) == []


async def test_a_broker_that_is_away_is_raised_at_the_start(unused_tcp_port: int) -> None:
    with pytest.raises(BrokerUnavailable, match="connecting to RabbitMQ"):
        await RabbitMQMessengerInterface(f"amqp://guest:guest@127.0.0.1:{unused_tcp_port}/").connect(Runner())


async def test_another_topology_is_raised_at_the_start(url: str, looking: tuple[Broker, Topology]) -> None:
    _, topology = looking
    other = Topology(topology.namespace, shards=SHARDS, max_length=3)
    with pytest.raises(BrokerRefused, match="x-max-length"):
        await RabbitMQMessengerInterface(url, topology=other).connect(Runner())


async def test_a_backlog_is_not_read_ahead_of_what_may_run_and_does_not_hold_up_a_stop(
    url: str, looking: tuple[Broker, Topology], client: BrokerClient
) -> None:
    interface = RabbitMQMessengerInterface(url, topology=looking[1], concurrency=1, batch_size=1, drain_timeout=0)
    runner = Runner()
    for number in range(10):
        await client.send(Message("held"), f"context {number}")
    connecting = asyncio.create_task(interface.connect(runner))
    await until(
        lambda: interface._taken.requests == 10 and len(interface._lanes) == 2, "ten requests, two of them read"
    )
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(interface._lanes) == 2
    interface.stop()
    async with asyncio.timeout(IDLE_POLL_SECONDS / 2):  # In which a poll that waits for nothing would still be waiting.
        await connecting
    assert (runner.started, interface.unfinished) == (["held"], 2)
