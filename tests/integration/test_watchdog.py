"""The watchdog: whatever the client library believes, a lost consumer is made again, or the process ends."""

import asyncio
import random
from contextlib import suppress

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.consumers import KeptConsumer, Watch
from interfaces.errors import BrokerUnavailable, ConsumerLost, ExitCode
from interfaces.topology import Topology
from tests.integration.conftest import StartWorker
from tests.integration.faults import (
    Gate,
    Notebook,
    ObservedBroker,
    applied,
    ask_once_bound,
    linked,
    opened,
    rounds,
    running,
    send_all,
    until,
    worker_settings,
)
from tests.services.servers import Broker as BrokerServer
from worker.running import Worker
from worker.stores.redis import RedisStore


async def test_a_consumer_the_broker_cancels_with_its_queue_consumes_the_new_queue(
    own_broker: BrokerServer, caplog: pytest.LogCaptureFixture
) -> None:
    # On a broker of its own: RabbitMQ 3.10 may take harm from queues that are deleted and declared again.
    topology = Topology(shards=4)
    async with (
        opened(own_broker.url) as consuming,
        running(Worker(Notebook(), worker_settings(topology.namespace, shards=4), broker=consuming)),
        opened(own_broker.url) as broker,
        BrokerClient(own_broker.url) as client,
    ):
        assert (await client.ask("before", "ctx")).turn == 1
        for queue in topology.shard_queues:
            await broker.delete_queue(queue)
        await until(lambda: min(consuming.consumed[queue] for queue in topology.shard_queues) == 2, "consumed again")
        assert (await ask_once_bound(client, "after", "ctx")).turn == 2
    for queue in topology.shard_queues:
        assert f"consumer of {queue} closed" in caplog.text
    assert "is missing, declaring it again" in caplog.text


async def test_a_consumer_that_is_silently_gone_is_made_again(
    amqp_url: str, topology: Topology, client: BrokerClient, store: RedisStore, redis_url: str
) -> None:
    sent = rounds((f"context {number}" for number in range(20)), range(10))
    settings = worker_settings(topology.namespace, redis_url=redis_url, watch_every=0.1)
    async with opened(amqp_url) as consuming, running(Worker(Notebook(), settings, broker=consuming)):
        for queue in topology.shard_queues:
            await consuming.cancel_consumer(queue)
            # The channel stays open and the library is content; the broker has no consumer any more.
            assert consuming.channels[queue].is_open
        await send_all(client, sent)
        await applied(store, sent)
        assert [consuming.consumed[queue] for queue in topology.shard_queues] == [2] * len(topology.shard_queues)


async def test_a_worker_whose_broker_never_shows_its_consumer_ends_with_consumer_lost(
    amqp_url: str, topology: Topology, client: BrokerClient
) -> None:
    settings = worker_settings(topology.namespace, watch_every=0.05, watch_lost_after=1.0)
    consuming = ObservedBroker(amqp_url)
    async with running(Worker(Notebook(), settings, broker=consuming)) as working:
        assert (await client.ask("before", "ctx")).status == "ok"
        consuming.is_blind = True
        with pytest.raises(ConsumerLost, match=f"no consumer on '{topology.namespace}"):
            await asyncio.wait_for(asyncio.shield(working), 30)
    assert max(consuming.consumed.values()) > 2, "it was tried again before"
    assert not any(channel.is_open for channel in consuming.channels.values())


async def test_a_consumer_lost_for_less_than_the_bound_ends_nothing(
    amqp_url: str, topology: Topology, client: BrokerClient
) -> None:
    consuming = ObservedBroker(amqp_url)
    settings = worker_settings(topology.namespace, watch_every=0.1)
    async with running(Worker(Notebook(), settings, broker=consuming)) as working:
        consuming.is_blind = True
        await until(lambda: min(consuming.consumed.values()) >= 3, "consumed again and again")
        consuming.is_blind = False
        assert (await client.ask("still there", "ctx")).status == "ok"
        assert not working.done()


async def test_running_turns_settle_before_a_lost_consumer_ends_the_worker(
    amqp_url: str, topology: Topology, client: BrokerClient
) -> None:
    bot, consuming = Gate(), ObservedBroker(amqp_url)
    settings = worker_settings(topology.namespace, watch_every=0.05, watch_lost_after=0.5)
    async with running(Worker(bot, settings, broker=consuming)) as working:
        asking = asyncio.create_task(client.ask("held", "ctx", timeout=30))
        await until(lambda: bot.started == ["held"], "the turn runs")
        consuming.is_blind = True
        await until(lambda: max(consuming.consumed.values()) >= 3, "consumed again and again")
        bot.open("held")
        with pytest.raises(ConsumerLost):
            await asyncio.wait_for(asyncio.shield(working), 30)
        assert (await asking).turn == 1


async def test_an_outage_longer_than_the_bound_is_waited_out(
    amqp_url: str, topology: Topology, client: BrokerClient, caplog: pytest.LogCaptureFixture
) -> None:
    settings = worker_settings(topology.namespace, watch_every=0.05, watch_lost_after=0.2)
    async with linked(amqp_url) as links, running(Worker(Notebook(), settings, broker=links.broker)) as working:
        for proxy in links.named("both"):
            await proxy.close()
        await until(lambda: "(attempt 6)" in caplog.text, "it tried for longer than the bound")
        assert not working.done()
        for proxy in links.named("both"):
            await proxy.start()
        assert (await client.ask("back", "ctx")).status == "ok"


@pytest.mark.timeout(180)
async def test_a_process_that_loses_its_consumer_for_good_ends_with_its_own_exit_code(
    own_broker: BrokerServer, start_worker: StartWorker, namespace: str
) -> None:
    # A broker of its own: RabbitMQ 3.10 may lose its supervisor of dead-letter workers, for the whole node, when a
    # queue is deleted in the moment it has been declared.
    process = await start_worker(
        "tests.bots.counting:answer", amqp_url=own_broker.url, shards=1, watch_every=0.5, watch_lost_after=2
    )
    await process.ready()
    [queue] = Topology(namespace, shards=1).shard_queues
    deleted = 0
    async with opened(own_broker.url) as broker, asyncio.timeout(60):
        # Each time the worker declares and consumes the queue anew, it is taken away before it can be seen there.
        while process.is_running:
            with suppress(BrokerUnavailable):
                if await broker.queue_state(queue) is not None:
                    await broker.delete_queue(queue)
                    deleted += 1
            await asyncio.sleep(0.02)
    assert deleted > 0
    assert await process.ended() == ExitCode.CONSUMER_LOST, process.log
    assert "no consumer on" in process.log


async def test_a_consumer_that_is_cancelled_at_any_moment_ends_and_leaves_none_behind(
    amqp_url: str, topology: Topology, broker: RabbitMQBroker
) -> None:
    queue = topology.shard_queue(0)
    chance = random.Random(7)

    async def declare() -> None:
        await broker.apply(topology)

    async with opened(amqp_url) as consuming:
        for _ in range(100):
            kept = KeptConsumer(consuming, queue, 1, lambda _: None, declare=declare, watch=Watch(every=0.001))
            running_consumer = asyncio.create_task(kept.run())
            await asyncio.sleep(chance.uniform(0, 0.03))  # anywhere between opening a channel and the third look
            running_consumer.cancel()
            await asyncio.wait({running_consumer}, timeout=20)
            assert running_consumer.cancelled()
            state = await broker.queue_state(queue)
            async with asyncio.timeout(20):
                while state is None or state.consumers:
                    state = await broker.queue_state(queue)
