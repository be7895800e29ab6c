"""Many turns of one context are acknowledged into a connection that is dead, and all of their requests come again.

However small the window of kept replies is, none of them runs twice.
"""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.faults import all_settled, applied, linked, opened, running, send_all, until, worker_settings
from worker.running import Worker
from worker.stores.redis import RedisStore

REQUESTS = 300
OUTBOX = 16
CTX = "flooder"


class Held:
    """A bot that begins when it is let, and counts its runs."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def __call__(self, ctx: Context) -> str:
        text = ctx.last_request.text or ""
        self.runs[text] += 1
        await self.go.wait()
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return text


async def kept_replies(redis_url: str, store: RedisStore) -> int:
    async with Redis.from_url(redis_url) as redis:
        fields: list[bytes] = await redis.hkeys(store.key(CTX))  # type: ignore[assignment]  # redis-py says str
        return sum(field.startswith(b"r:") for field in fields)


@pytest.mark.timeout(180)
async def test_more_acknowledgements_than_replies_are_kept_are_lost_with_the_connection_and_no_turn_is_run_twice(
    amqp_url: str,
    redis_url: str,
    topology: Topology,
    store: RedisStore,
    redelivered: Counter[str],
    report: Report,
) -> None:
    bot = Held()
    settings = worker_settings(topology.namespace, redis_url=redis_url, outbox=OUTBOX, history=1)
    async with linked(amqp_url) as links, BrokerClient(amqp_url, namespace=topology.namespace) as client:
        sent = {CTX: [str(number) for number in range(REQUESTS)]}
        await send_all(client, sent)
        worker = Worker(bot, settings, broker=links.broker)
        async with running(worker):
            await until(lambda: sum(map(len, worker._interface.unsettled.values())) == REQUESTS, "all are taken")
            await until(lambda: bool(bot.runs), "the first turn has begun")
            links.consuming.pause()
            bot.go.set()
            await applied(store, sent)
            kept = await kept_replies(redis_url, store)
            await links.consuming.cut()
            links.consuming.resume()
            await until(lambda: redelivered.total() >= REQUESTS, "what was acknowledged in vain comes again")
            await until(lambda: not any(worker._interface.unsettled.values()), "all are settled again")
            await applied(store, sent)
        async with opened(amqp_url) as broker:
            await all_settled(broker, topology)
        assert set(bot.runs.values()) == {1}
        assert kept == REQUESTS
        assert min(redelivered.values()) >= 1
    report(f"{REQUESTS} of {REQUESTS} acknowledgements lost, window of {OUTBOX} replies, {kept} kept; none ran twice")
