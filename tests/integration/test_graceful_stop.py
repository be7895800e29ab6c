"""Stopping: what runs is finished and settled, what was not started waits for the next worker, in order, each once."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import ExitCode
from interfaces.topology import Topology
from tests.bots.gated import HOLD, began_key, release_key
from tests.integration.conftest import StartWorker
from tests.integration.faults import (
    Gate,
    Notebook,
    all_settled,
    applied,
    read,
    rounds,
    running,
    send_all,
    until,
    worker_settings,
)
from tests.integration.redis_probes import proxied
from tests.services.processes import WorkerProcess
from worker.running import Worker
from worker.stores.redis import RedisStore

CONTEXTS = ["one", "two", "three"]


async def messages_ready(broker: RabbitMQBroker, topology: Topology, count: int) -> None:
    """Wait until so many requests wait in the shards; a closed channel gives its own back a moment later."""
    ready = -1
    async with asyncio.timeout(20):
        while ready != count:
            states = [await broker.queue_state(queue) for queue in topology.shard_queues]
            ready = sum(state.messages for state in states if state)
            await asyncio.sleep(0.01)


async def begun(store: RedisStore) -> list[str]:
    """Contexts in which the start of a turn is counted that is not finished."""
    return [ctx_id for ctx_id in CONTEXTS if (await store.read_outbox(ctx_id)).started is not None]


async def test_running_turns_finish_and_what_has_not_started_waits_for_the_next_worker(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker, store: RedisStore
) -> None:
    bot, settings = Gate(), worker_settings(topology.namespace, redis_url=redis_url)
    sent = {ctx_id: [f"{ctx_id} {number}" for number in range(5)] for ctx_id in CONTEXTS}
    first = Worker(bot, settings, broker=RabbitMQBroker(amqp_url))
    async with client.replies() as replies, running(first) as working:
        await send_all(client, sent)
        await until(lambda: len(bot.started) == 3, "the first turn of each context runs")
        first.stop()
        await send_all(client, {ctx_id: [f"{ctx_id} 5"] for ctx_id in CONTEXTS})
        assert not working.done()
        bot.open(*(text for texts in sent.values() for text in texts), *(f"{ctx_id} 5" for ctx_id in CONTEXTS))
        await working
        assert first.unfinished == 0
        assert sorted(bot.started) == sorted(f"{ctx_id} 0" for ctx_id in CONTEXTS)
        finished = [(await anext(replies)).ctx_id for _ in CONTEXTS]
        assert sorted(map(str, finished)) == sorted(CONTEXTS)
        await messages_ready(broker, topology, 15)

        async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
            later = [await anext(replies) for _ in range(15)]
            for ctx_id in CONTEXTS:
                assert [reply.turn for reply in later if reply.ctx_id == ctx_id] == [2, 3, 4, 5, 6]
    await applied(store, {ctx_id: [f"{ctx_id} {number}" for number in range(6)] for ctx_id in CONTEXTS})
    assert len(bot.started) == 18
    await all_settled(broker, topology)


async def test_turns_that_wait_for_the_bot_when_it_stops_are_left_to_the_next_worker_and_are_no_crash(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker, store: RedisStore
) -> None:
    """Their contexts are loaded, their starts counted: with this limit a start that stays would be a dead letter."""
    bot = Gate()
    settings = worker_settings(topology.namespace, redis_url=redis_url, concurrency=1, crash_limit=1)
    sent = {ctx_id: [f"{ctx_id} {number}" for number in range(2)] for ctx_id in CONTEXTS}
    await send_all(client, sent)
    worker = Worker(bot, settings, broker=RabbitMQBroker(amqp_url))
    async with running(worker) as working:
        await until(lambda: len(bot.started) == 1, "the bot runs")
        async with asyncio.timeout(20):
            while len(await begun(store)) < 2:  # noqa: ASYNC110 - concurrency, and as many again; a store is to be asked
                await asyncio.sleep(0.005)
        worker.stop()
        bot.open(*(text for texts in sent.values() for text in texts))
        await working
    assert (worker.unfinished, len(bot.started)) == (0, 1)
    assert await begun(store) == []
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await applied(store, sent)
    assert len(bot.started) == 6
    await all_settled(broker, topology)


async def test_workers_stopped_one_after_the_other_in_the_middle_of_the_work_answer_everything_once(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker, store: RedisStore
) -> None:
    sent = rounds((f"context {number}" for number in range(30)), range(15))
    bot = Notebook(pace=0.01)
    settings = worker_settings(topology.namespace, redis_url=redis_url, concurrency=8)
    sending = asyncio.create_task(send_all(client, sent))
    for done in (50, 150, 250):
        worker = Worker(bot, settings, broker=RabbitMQBroker(amqp_url))
        async with running(worker):
            await until(lambda done=done: len(bot.runs) >= done, "turns run")  # type: ignore[misc]  # mypy cannot type a lambda's default
        assert worker.unfinished == 0
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await sending
        await applied(store, sent)
    assert set(bot.runs.values()) == {1}
    await all_settled(broker, topology)


async def test_turns_that_exceed_the_grace_period_come_again_and_are_no_crash(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker, store: RedisStore
) -> None:
    bot = Gate()
    settings = worker_settings(topology.namespace, redis_url=redis_url, drain_timeout=0.1, crash_limit=1)
    await client.send("held", "ctx")
    await client.send("behind", "ctx")
    for attempt in range(1, 4):
        worker = Worker(bot, settings, broker=RabbitMQBroker(amqp_url))
        async with running(worker):
            await until(lambda attempt=attempt: bot.started == ["held"] * attempt, "the turn runs again")  # type: ignore[misc]  # mypy cannot type a lambda's default
        assert worker.unfinished == 1
        await messages_ready(broker, topology, 2)
    bot.open("held", "behind")
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await applied(store, {"ctx": ["held", "behind"]})
    assert bot.started == ["held"] * 4 + ["behind"]
    await all_settled(broker, topology)


async def test_a_cancelled_worker_ends_at_once_and_its_turn_comes_again(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker, store: RedisStore
) -> None:
    bot = Gate()
    settings = worker_settings(topology.namespace, redis_url=redis_url, drain_timeout=60, crash_limit=1)
    await client.send("held", "ctx")
    for politely_first in (False, True):
        worker, before = Worker(bot, settings, broker=RabbitMQBroker(amqp_url)), len(bot.started)
        async with running(worker) as working:
            await until(lambda before=before: len(bot.started) > before, "the turn runs")  # type: ignore[misc]  # as above
            if politely_first:
                worker.stop()
                await asyncio.sleep(0)
            working.cancel()
            if not politely_first:
                await asyncio.sleep(0)
                working.cancel()  # the first cancellation begins a polite stop, the second ends that
            began = time.monotonic()
            await asyncio.wait({working}, timeout=30)
            assert working.cancelled()
            assert time.monotonic() - began < 10
        assert worker.unfinished == 1
        await messages_ready(broker, topology, 1)
    bot.open("held")
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await applied(store, {"ctx": ["held"]})


async def test_a_worker_stopped_while_redis_is_away_leaves_no_task_behind_and_its_requests_in_the_queue(
    amqp_url: str, redis_url: str, topology: Topology, client: BrokerClient, broker: RabbitMQBroker
) -> None:
    async with proxied(redis_url) as (proxy, via):
        bot = Notebook()
        worker = Worker(
            bot,
            worker_settings(topology.namespace, redis_url=via, drain_timeout=0.3, redis_timeout=0.3),
            broker=RabbitMQBroker(amqp_url),
        )
        async with running(worker):
            await proxy.close()
            await client.send("waits", "ctx")
            await messages_ready(broker, topology, 0)
            await until(lambda: bool(worker._interface._taken), "the request is in its turn")
        assert worker.unfinished == 1
        await messages_ready(broker, topology, 1)
        assert not [task for task in asyncio.all_tasks() if "store" in repr(task.get_coro())]
    assert not bot.runs


@pytest.fixture
async def gate(redis_url: str, namespace: str) -> AsyncIterator[Redis]:
    """The Redis through which `tests.bots.gated` is held and released."""
    async with Redis.from_url(redis_url, socket_timeout=120) as redis:
        yield redis
        await redis.delete(began_key(namespace), release_key(namespace))


async def holding(
    start_worker: StartWorker, gate: Redis, client: BrokerClient, bot: str = "answer", **settings: object
) -> WorkerProcess:
    """A worker process with one turn that holds, and two requests behind it."""
    process = await (await start_worker(f"tests.bots.gated:{bot}", **settings)).ready()
    for text in (HOLD, "second", "third"):
        await client.send(text, "ctx")
    assert await gate.blpop([began_key(client._topology.namespace)], timeout=60)
    return process


async def test_a_process_told_to_stop_finishes_its_turn_and_ends_with_success(
    start_worker: StartWorker, gate: Redis, client: BrokerClient, topology: Topology, store: RedisStore
) -> None:
    async with client.replies() as replies:
        process = await holding(start_worker, gate, client)
        os.kill(process.pid, signal.SIGTERM)
        await until(lambda: "SIGTERM" in process.log, "the signal arrived")
        assert process.is_running
        await gate.rpush(release_key(topology.namespace), "go")
        assert await process.ended() == ExitCode.OK, process.log
        assert (await anext(replies)).turn == 1
        assert (await read(store, "ctx")).current_turn_id == 1
        await (await start_worker("tests.bots.gated:answer")).ready()
        rest = [await anext(replies) for _ in range(2)]
    assert [reply.message and reply.message.text for reply in rest] == ["second", "third"]
    assert [reply.turn for reply in rest] == [2, 3]


@pytest.mark.parametrize("how", ["the grace period is over", "a second signal comes"])
@pytest.mark.parametrize("bot", ["answer", "answer_blocking"])
async def test_a_process_ended_with_a_turn_running_says_so_and_the_request_comes_again(
    how: str, bot: str, start_worker: StartWorker, gate: Redis, client: BrokerClient, topology: Topology
) -> None:
    drain_timeout = 60 if how == "a second signal comes" else 0.2
    async with client.replies() as replies:
        process = await holding(start_worker, gate, client, bot, drain_timeout=drain_timeout, crash_limit=1)
        os.kill(process.pid, signal.SIGTERM)
        if how == "a second signal comes":
            await until(lambda: "SIGTERM" in process.log, "the first signal arrived")
            assert process.is_running
            os.kill(process.pid, signal.SIGINT)
        async with asyncio.timeout(25):
            assert await process.ended() == ExitCode.UNFINISHED, process.log
        await (await start_worker("tests.bots.gated:answer", crash_limit=1)).ready()
        await gate.rpush(release_key(topology.namespace), "go")
        answered = [await anext(replies) for _ in range(3)]
    assert [reply.turn for reply in answered] == [1, 2, 3]
    assert [reply.message and reply.message.text for reply in answered] == [HOLD, "second", "third"]
