"""Fifty hand-overs of one shard, one after the other, under load: nothing lost, doubled, out of order or dead-lettered.

Two real workers pass the shard to and fro by the test's orders instead of the workers' list, each while requests wait
that the other has prefetched: every one of those counts as a further delivery of theirs.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.context import Context
from tests.integration.conftest import Report
from tests.integration.faults import all_settled, applied, running, until, worker_settings
from worker.membership import Membership
from worker.running import Worker
from worker.settings import Settings
from worker.stores.redis import RedisStore

HAND_OVERS = 50
TURNS_BETWEEN = 20
"""Turns that the new owner has run before the next hand-over."""

AHEAD = 200
"""Requests that wait at any time, which is more than are prefetched."""

CONTEXTS = [f"context {number}" for number in range(20)]


class Relay:
    """One of the two workers, and the bot it runs."""

    def __init__(self, settings: Settings, amqp_url: str) -> None:
        self.runs: Counter[str] = Counter()
        self.began: list[float] = []
        self.worker = Worker(self._note, settings, broker=RabbitMQBroker(amqp_url))

    async def _note(self, ctx: Context) -> str:
        self.began.append(time.monotonic())
        text = ctx.last_request.text or ""
        self.runs[f"{ctx.id}: {text}"] += 1
        await asyncio.sleep(0.002)
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return text

    def want(self, *queues: str) -> None:
        self.worker._interface.want(queues)


@asynccontextmanager
async def loaded(client: BrokerClient, relays: tuple[Relay, Relay]) -> AsyncIterator[dict[str, list[str]]]:
    """Send to all contexts for as long as the block lasts, always `AHEAD` of the turns. What was sent, when it ends."""
    sent: dict[str, list[str]] = {ctx_id: [] for ctx_id in CONTEXTS}
    stop = asyncio.Event()

    async def send(ctx_id: str) -> None:
        while not stop.is_set():
            if sum(map(len, sent.values())) - sum(len(relay.began) for relay in relays) > AHEAD:
                await asyncio.sleep(0.005)
                continue
            sent[ctx_id].append(str(len(sent[ctx_id])))
            await client.send(sent[ctx_id][-1], ctx_id)

    async with asyncio.TaskGroup() as group:
        for ctx_id in CONTEXTS:
            group.create_task(send(ctx_id))
        yield sent
        stop.set()


async def hand_over(queue: str, owner: Relay, successor: Relay) -> float:
    """Have the successor wait in line, then the owner let go. Seconds from its last turn to the first."""
    before = len(owner.began), len(successor.began)
    successor.want(queue)
    await until(lambda: queue in successor.worker.consumed, "the successor is in line")
    await until(lambda: len(owner.began) >= before[0] + TURNS_BETWEEN, "the owner runs turns")
    assert len(successor.began) == before[1]
    owner.want()
    await until(lambda: len(successor.began) >= before[1] + TURNS_BETWEEN, "the successor runs turns")
    return successor.began[before[1]] - owner.began[-1]


@pytest.mark.timeout(300)
async def test_fifty_hand_overs_under_load_keep_order_and_dead_letter_nothing(
    amqp_url: str,
    redis_url: str,
    namespace: str,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
    redelivered: Counter[str],
    report: Report,
) -> None:
    monkeypatch.setattr(Membership, "_adapt", lambda membership, _: membership._interface._wanted)
    settings = worker_settings(namespace, redis_url=redis_url, shards=1, concurrency=8, prefetch=64)
    [queue] = settings.topology.shard_queues
    relays = Relay(settings, amqp_url), Relay(settings, amqp_url)
    owner, waiting = relays
    without_service: list[float] = []
    async with BrokerClient(amqp_url, namespace=namespace) as client:
        async with running(owner.worker), running(waiting.worker):
            owner.want(queue)
            await until(lambda: queue in owner.worker.consumed, "the first owner consumes")
            async with loaded(client, relays) as sent:
                for _ in range(HAND_OVERS):
                    without_service.append(await hand_over(queue, owner, waiting))
                    owner, waiting = waiting, owner
            await applied(store, sent)
        broker = RabbitMQBroker(amqp_url)
        await broker.open()
        await all_settled(broker, settings.topology)
        await broker.close()
    runs = relays[0].runs + relays[1].runs
    assert runs.keys() == {f"{ctx_id}: {text}" for ctx_id, texts in sent.items() for text in texts}
    assert set(runs.values()) == {1}
    assert redelivered.total() > HAND_OVERS * TURNS_BETWEEN
    milliseconds = [seconds * 1000 for seconds in without_service]
    report(
        f"{HAND_OVERS} hand-overs over {runs.total()} turns, {redelivered.total()} redeliveries, one request up to "
        f"{max(redelivered.values())} times; without a turn for {median(milliseconds):.0f} ms, at most "
        f"{max(milliseconds):.0f} ms"
    )
    assert max(without_service) < 1
