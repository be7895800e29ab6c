"""A broker restart under load: 2,000 requests wait, publishers go on, every context gets all its own in order."""

import asyncio
import time

import pytest

from interfaces.client import BrokerClient
from interfaces.topology import SLOTS, Topology
from tests.integration.conftest import Report
from tests.integration.faults import (
    PATIENCE,
    Notebook,
    ObservedBroker,
    all_settled,
    applied,
    opened,
    rounds,
    running,
    send_all,
    until,
    worker_settings,
)
from tests.services.servers import Broker
from worker.running import Worker
from worker.stores.redis import RedisStore

CONTEXTS = [f"context {number}" for number in range(200)]
BACKLOG = range(10)
GOING_ON = range(10, 15)


async def slots_of(server: Broker, topology: Topology) -> dict[str, list[str]]:
    """The queues that each slot leads to, as the broker itself tells."""
    listed = await server.rabbitmqctl("-q", "list_bindings", "source_name", "routing_key", "destination_name")
    slots: dict[str, list[str]] = {}
    for line in listed.splitlines():
        exchange, _, rest = line.partition("\t")
        if exchange == topology.requests_exchange:
            key, _, queue = rest.partition("\t")
            slots.setdefault(key, []).append(queue)
    return slots


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [pytest.param("restarted", marks=pytest.mark.long), "killed and started"])
async def test_a_broker_restarted_under_load_loses_doubles_and_reorders_nothing(
    how: str, own_broker: Broker, namespace: str, redis_url: str, store: RedisStore, report: Report
) -> None:
    settings = worker_settings(namespace, redis_url=redis_url, concurrency=64)
    topology = settings.topology
    bot = Notebook(pace=0.02)
    async with BrokerClient(own_broker.url, namespace=namespace) as client, opened(own_broker.url) as observer:
        await observer.apply(topology)
        await send_all(client, rounds(CONTEXTS, BACKLOG))
        waiting = [await observer.queue_state(queue) for queue in topology.shard_queues]
        assert sum(state.messages for state in waiting if state) == len(CONTEXTS) * len(BACKLOG)
        slots = await slots_of(own_broker, topology)
        broker = ObservedBroker(own_broker.url)
        async with running(Worker(bot, settings, broker=broker)):
            sending = asyncio.create_task(send_all(client, rounds(CONTEXTS, GOING_ON), timeout=2 * PATIENCE, pause=0.3))
            await until(lambda: len(bot.runs) > 100, "turns run")
            before = len(bot.runs)
            assert not sending.done()
            began = time.monotonic()
            if how == "restarted":
                await own_broker.restart()
            else:
                await own_broker.kill()
                await own_broker.start()
            report(f"broker {how} in {time.monotonic() - began:.1f} s after {before} turns")
            await sending
            await applied(store, rounds(CONTEXTS, range(GOING_ON.stop)), seconds=2 * PATIENCE)
        assert before < len(CONTEXTS) * len(BACKLOG)
        assert all(broker.consumed[queue] > 1 for queue in topology.shard_queues)
        await all_settled(observer, topology)
        assert await slots_of(own_broker, topology) == slots
    assert slots == {str(slot): [topology.queue_of(slot)] for slot in range(SLOTS)}
