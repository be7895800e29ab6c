"""The bytes of requests that a process holds stay below their bound, and nothing is lost or overtaken by that."""

import asyncio
from collections.abc import Sequence

import pytest

from interfaces.arrivals import Arrivals
from interfaces.brokers import Delivery
from interfaces.client import BrokerClient
from interfaces.messages import Message
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.faults import Notebook, ObservedBroker, all_settled, applied, opened, running, worker_settings
from worker.running import Worker
from worker.stores.redis import RedisStore

MIB = 1024 * 1024
BODY = 400_000
CONTEXTS = [f"context {number}" for number in range(20)]
EACH = 4
"""Requests of a context: 80 in all, which are 31 MiB."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Sequence[int]:
    """Bytes held after each delivery."""
    held: list[int] = []
    original = Arrivals.deliver

    def deliver(arrivals: Arrivals, delivery: Delivery) -> None:
        original(arrivals, delivery)
        held.append(arrivals.bytes)

    monkeypatch.setattr(Arrivals, "deliver", deliver)
    return held


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("bound", "is_full"), [(4 * MIB, True), (64 * MIB, False)], ids=["above", "below"])
async def test_large_requests_are_held_up_to_the_bound_and_each_is_applied_once_in_order(
    bound: int,
    is_full: bool,
    amqp_url: str,
    redis_url: str,
    topology: Topology,
    store: RedisStore,
    held: Sequence[int],
    report: Report,
) -> None:
    bot = Notebook(pace=0.02)
    settings = worker_settings(topology.namespace, redis_url=redis_url, in_flight_bytes=bound, concurrency=4, history=1)
    sent = {ctx_id: [str(number) for number in range(EACH)] for ctx_id in CONTEXTS}
    async with BrokerClient(amqp_url, namespace=topology.namespace) as client:
        for number in range(EACH):
            message = Message(str(number), misc={"blob": "x" * BODY})
            await asyncio.gather(*(client.send(message, ctx_id) for ctx_id in CONTEXTS))
    broker = ObservedBroker(amqp_url)
    async with running(Worker(bot, settings, broker=broker)):
        await applied(store, sent)
    async with opened(amqp_url) as looking:
        await all_settled(looking, topology)
    assert set(bot.runs.values()) == {1}
    assert (broker.consumed.total() > topology.shards) is is_full
    # A shard of which nothing is held takes one request whatever the others hold.
    assert max(held) <= bound + topology.shards * (BODY + 4096)
    report(f"bound of {bound // MIB} MiB: at most {max(held) / MIB:.1f} held, {broker.consumed.total()} channels")
