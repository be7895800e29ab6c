"""`switchboard dead replay` on real servers: in order, each turn once, nothing lost, however it ends."""

import asyncio
import signal
import time
from typing import Any

import pytest
from pamqp import commands

from interfaces.brokers import Delivery
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.envelope import encode_request
from interfaces.messages import Message
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import eventually, holds_messages
from tests.integration.conftest import Report, StartWorker
from tests.integration.dead_command import DeadCommand, buried, publish_all
from tests.integration.wire import Wire
from worker import records
from worker.dead_letters import new_id
from worker.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(300)

BOT = "tests.bots.counting:answer"
FAILING = "tests.integration.test_dead_replay:fail"
CONTEXTS = [f"ctx-{number}" for number in range(50)]
TURNS = [str(number) for number in range(20)]


async def fail(ctx: object) -> str:
    """A bot that was not mended."""
    raise ValueError("boom")


@pytest.fixture
def dead(worker_settings: dict[str, str]) -> DeadCommand:
    return DeadCommand(worker_settings)


async def bury_a_thousand(broker: RabbitMQBroker, topology: Topology) -> None:
    await publish_all(broker, [buried(topology, ctx_id, text) for text in TURNS for ctx_id in CONTEXTS])


async def applied(store: RedisStore, ctx_id: str) -> list[str]:
    """What a context's turns were, in order."""
    loaded = await store.peek(ctx_id, 1)
    if loaded is None:
        return []
    found: list[str] = records.read_context(ctx_id, loaded.version, loaded.main, loaded.turns).misc["applied"]
    return found


async def all_are_applied_once_in_order(store: RedisStore) -> None:
    async def are_there() -> bool:
        return all([len(await applied(store, ctx_id)) >= len(TURNS) for ctx_id in CONTEXTS])

    await eventually(are_there, "every turn is applied")
    assert {ctx_id: await applied(store, ctx_id) for ctx_id in CONTEXTS} == dict.fromkeys(CONTEXTS, TURNS)


async def test_a_thousand_over_fifty_contexts_are_replayed_in_order_while_a_worker_runs(
    broker: RabbitMQBroker,
    topology: Topology,
    store: RedisStore,
    start_worker: StartWorker,
    dead: DeadCommand,
    report: Report,
) -> None:
    await bury_a_thousand(broker, topology)
    await (await start_worker(BOT)).ready()
    began = time.monotonic()
    done = await dead("replay", "--all")
    report(f"1,000 dead letters replayed in {time.monotonic() - began:.1f} s, the command's start and end included")
    assert done.out == "1000 dead letters replayed\n"
    await all_are_applied_once_in_order(store)
    await holds_messages(broker, topology.dead, 0)


async def test_killed_in_the_middle_and_run_again_nothing_is_lost_and_each_turn_is_once(
    broker: RabbitMQBroker, topology: Topology, store: RedisStore, start_worker: StartWorker, dead: DeadCommand
) -> None:
    await bury_a_thousand(broker, topology)
    killed = await dead.start("replay", "--all")

    async def is_in_the_middle() -> bool:
        states = [await broker.queue_state(queue) for queue in topology.shard_queues]
        return sum(state.messages for state in states if state is not None) >= 100

    await eventually(is_in_the_middle, "some are replayed")
    killed.kill()
    assert (await dead.end(killed)).code == -signal.SIGKILL

    async def is_given_back() -> bool:
        state = await broker.queue_state(topology.dead)
        return state is not None and state.messages > 0

    await eventually(is_given_back, "some are left")
    await (await start_worker(BOT)).ready()
    await dead("replay", "--all")
    await all_are_applied_once_in_order(store)
    await holds_messages(broker, topology.dead, 0)


async def test_two_operators_at_once_do_no_harm(
    broker: RabbitMQBroker, topology: Topology, store: RedisStore, start_worker: StartWorker, dead: DeadCommand
) -> None:
    await bury_a_thousand(broker, topology)
    await (await start_worker(BOT)).ready()
    done = await asyncio.gather(dead("replay", "--all"), dead("replay", "--all"), dead("list"))
    assert sum(int(one.out.split()[0]) for one in done[:2]) == 1000
    await all_are_applied_once_in_order(store)
    await holds_messages(broker, topology.dead, 0)


async def test_a_turn_that_was_committed_is_not_repeated_unless_it_is_told_to_run_again(
    broker: RabbitMQBroker,
    topology: Topology,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
    dead: DeadCommand,
) -> None:
    await (await start_worker(BOT)).ready()
    await client.ask("0", "ada", request_id="ada-0")
    await publish_all(broker, [buried(topology, "ada", "0")])
    await dead("replay", "ada-0")
    await client.ask("1", "ada")
    assert await applied(store, "ada") == ["0", "1"]

    await publish_all(broker, [buried(topology, "ada", "0")])
    done = await dead("replay", "ada-0", "--run-again")
    assert f"ada-0 is now {new_id('ada-0')}" in done.out
    await client.ask("2", "ada")
    assert await applied(store, "ada") == ["0", "1", "0", "2"]


async def test_what_fails_once_more_is_a_dead_letter_once_more_and_not_replayed_for_ever(
    broker: RabbitMQBroker, topology: Topology, start_worker: StartWorker, dead: DeadCommand
) -> None:
    await publish_all(broker, [buried(topology, "ada", text, worker="before") for text in TURNS])
    await (await start_worker(FAILING, attempts=1)).ready()
    assert (await dead("replay", "--all")).out == "20 dead letters replayed\n"
    await holds_messages(broker, topology.dead, 20)
    letters = await dead.listed()
    assert [each["request_id"] for each in letters] == [f"ada-{text}" for text in TURNS]
    assert all(each["attempts"] == 1 and each["worker"] != "before" for each in letters)


async def test_what_the_broker_gave_up_is_listed_and_replayed_alike(
    broker: RabbitMQBroker,
    topology: Topology,
    wire: Wire,
    store: RedisStore,
    start_worker: StartWorker,
    dead: DeadCommand,
) -> None:
    request = encode_request(topology, Message("late"), "ada", request_id="ada-late")
    headers: dict[str, Any] = {"mine": 1}
    await wire.channel.basic_publish(
        request.body,
        exchange=request.exchange,
        routing_key=request.routing_key,
        properties=commands.Basic.Properties(message_id="ada-late", expiration="10", headers=headers),
    )
    await holds_messages(broker, topology.dead, 1)
    [letter] = await dead.listed("--reason", "expired", "--context", "ada")
    assert (letter["request_id"], letter["worker"]) == ("ada-late", None)
    await dead("replay", "ada-late")
    arrived: list[Delivery] = []
    channel = await broker.consume(topology.queue_of(int(request.routing_key)), 1, arrived.append)

    async def is_back() -> bool:
        return bool(arrived)

    await eventually(is_back, "the request is back")
    await channel.close()
    [back] = arrived
    assert (back.body, back.properties.headers, back.properties.expiration) == (request.body, headers, None)


async def test_a_worker_that_stops_for_a_while_gets_them_when_it_is_back(
    broker: RabbitMQBroker, topology: Topology, store: RedisStore, start_worker: StartWorker, dead: DeadCommand
) -> None:
    """Replayed requests are requests like others: in their shard's queue until somebody takes them."""
    await publish_all(broker, [buried(topology, "ada", text, expiration="600000") for text in TURNS])
    assert (await dead("replay", "--context", "ada")).out == "20 dead letters replayed\n"
    await holds_messages(broker, topology.queue_of(slot("ada")), 20)
    await (await start_worker(BOT)).ready()

    async def are_there() -> bool:
        return await applied(store, "ada") == TURNS

    await eventually(are_there, "every turn is applied")
