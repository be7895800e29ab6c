"""Links that break in the middle of turns: the worker recovers by itself, each request is applied once and in order."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from interfaces.brokers import link
from interfaces.brokers.link import HEARTBEAT_SECONDS
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.topology import Topology
from tests.integration.faults import (
    Gate,
    Links,
    Notebook,
    all_settled,
    applied,
    linked,
    read,
    rounds,
    running,
    send_all,
    until,
    worker_settings,
)
from tests.integration.redis_probes import proxied
from tests.integration.wire import Wire
from tests.services.proxy import TcpProxy
from tests.services.servers import Server
from worker.running import Worker
from worker.stores import Retention
from worker.stores.redis import RedisStore

CUTS = 4
HEARTBEAT = 2


@pytest.fixture
async def links(amqp_url: str) -> AsyncIterator[Links]:
    async with linked(amqp_url, connect_timeout=HEARTBEAT, publish_timeout=HEARTBEAT) as links:
        yield links


@pytest.fixture
async def redis_link(redis_url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    async with proxied(redis_url) as link:
        yield link


async def cut_in_the_middle_of_turns(bot: Notebook, proxies: list[TcpProxy]) -> None:
    """Cut while turns run, again and again, each time once the links before have come back."""
    for _ in range(CUTS):
        await until(lambda: bot.running > 0, "a turn runs")
        before = [proxy.accepted for proxy in proxies]
        await asyncio.gather(*(proxy.cut() for proxy in proxies))
        await until(
            lambda before=before: all(  # type: ignore[misc]  # mypy cannot type a lambda's default
                proxy.accepted > count for proxy, count in zip(proxies, before, strict=True)
            ),
            "every link was made anew",
        )


@pytest.mark.parametrize("which", ["consuming", "publishing", "both", "redis", "all three"])
async def test_links_cut_in_the_middle_of_turns_lose_and_double_nothing(
    which: str,
    links: Links,
    redis_link: tuple[TcpProxy, str],
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    broker: RabbitMQBroker,
) -> None:
    redis_proxy, redis_via = redis_link
    proxies = [] if which == "redis" else links.named("both" if which == "all three" else which)
    proxies += [redis_proxy] if which in ("redis", "all three") else []
    replies = await wire.listen(topology.replies_exchange)
    sent = rounds((f"context {number}" for number in range(40)), range(12))
    bot = Notebook(pace=0.01)
    settings = worker_settings(topology.namespace, redis_url=redis_via, redis_timeout=1, concurrency=8)
    async with running(Worker(bot, settings, broker=links.broker)):
        async with asyncio.TaskGroup() as at_once:
            at_once.create_task(send_all(client, sent))
            at_once.create_task(cut_in_the_middle_of_turns(bot, proxies))
        await applied(store, sent)
    await all_settled(broker, topology)
    bodies = defaultdict(set)
    for reply in await wire.take_all(replies):
        bodies[reply.properties.message_id].add(reply.body)
    assert len(bodies) == sum(len(texts) for texts in sent.values())
    assert {len(different) for different in bodies.values()} == {1}


@pytest.mark.parametrize(
    "which",
    [pytest.param("consuming", marks=pytest.mark.long), pytest.param("publishing", marks=pytest.mark.long), "both"],
)
async def test_a_half_open_link_is_given_up_within_the_heartbeat_bound(
    which: str,
    amqp_url: str,
    topology: Topology,
    client: BrokerClient,
    store: RedisStore,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "HEARTBEAT_SECONDS", HEARTBEAT)
    sent = rounds((f"context {number}" for number in range(20)), range(10))
    bot = Notebook(pace=0.02)
    async with linked(amqp_url, connect_timeout=HEARTBEAT, publish_timeout=60) as links:
        settings = worker_settings(topology.namespace, redis_url=redis_url, concurrency=4)
        async with running(Worker(bot, settings, broker=links.broker)):
            sending = asyncio.create_task(send_all(client, sent))
            await until(lambda: bot.running > 0, "a turn runs")
            proxies = links.named(which)
            before = [proxy.accepted for proxy in proxies]
            stalled = time.monotonic()
            for proxy in proxies:
                proxy.pause()
            for proxy, count in zip(proxies, before, strict=True):
                await until(lambda proxy=proxy, count=count: proxy.accepted > count, "a new connection is tried")  # type: ignore[misc]  # as above
            # The library's bound is three heartbeats; the connections tried meanwhile stall as well.
            assert time.monotonic() - stalled < 4 * HEARTBEAT + 5
            for proxy in proxies:
                proxy.resume()
            await sending
            await applied(store, sent)


def test_the_heartbeat_bounds_a_half_open_link_to_half_a_minute() -> None:
    assert HEARTBEAT_SECONDS <= 10


async def test_a_commit_whose_answer_is_lost_is_applied_once(
    redis_link: tuple[TcpProxy, str], topology: Topology, amqp_url: str, client: BrokerClient, store: RedisStore
) -> None:
    proxy, via = redis_link
    runs = []

    async def bot(ctx: Context) -> str:
        text = ctx.last_request.text or ""
        runs.append(text)
        if text == "lose":
            proxy.drop_replies()  # the load has been answered: the next answer is the commit's
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return f"noted {text}"

    settings = worker_settings(topology.namespace, redis_url=via, redis_timeout=0.3)
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await client.ask("before", "ctx")
        asking = asyncio.create_task(client.ask("lose", "ctx"))
        await until(lambda: proxy.dropped > 0, "an answer of Redis was dropped")
        committed = await read(store, "ctx")
        proxy.resume()
        reply = await asking
        assert (await client.ask("after", "ctx")).turn == 3
    assert committed.misc["seen"] == ["before", "lose"]
    assert (reply.turn, reply.status) == (2, "ok")
    assert runs == ["before", "lose", "after"]
    assert (await read(store, "ctx")).misc["seen"] == ["before", "lose", "after"]


async def test_redis_away_for_a_while_is_waited_out_and_no_attempt_is_counted(
    own_redis: Server,
    topology: Topology,
    amqp_url: str,
    client: BrokerClient,
    broker: RabbitMQBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Redis.from_url(own_redis.url) as redis:
        await redis.config_set("save", "3600 1")  # so that it writes its data when it stops, however it was set up
    sent = rounds((f"context {number}" for number in range(10)), range(10))
    bot = Gate()
    bot.open(*(text for texts in sent.values() for text in texts if text != "5"))
    settings = worker_settings(topology.namespace, redis_url=own_redis.url, attempts=1, crash_limit=1)
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))) as task:
        await send_all(client, sent)
        await until(lambda: bot.started.count("5") == 10, "every context is in its turn 5")
        await own_redis.stop()
        bot.open("5")
        await until(
            lambda: "store unavailable (attempt 7)" in caplog.text, "a call to Redis failed for several seconds"
        )
        assert not task.done()
        await own_redis.start()
        store = RedisStore(own_redis.url, topology.namespace, Retention())
        await store.open()
        await applied(store, sent)
        await store.close()
    await all_settled(broker, topology)
    assert len(bot.started) == 100


async def test_a_worker_starts_when_its_servers_come_up(
    links: Links,
    redis_link: tuple[TcpProxy, str],
    topology: Topology,
    client: BrokerClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis_proxy, redis_via = redis_link
    for proxy in (redis_proxy, *links.named("both")):
        await proxy.close()
    worker = Worker(Notebook(), worker_settings(topology.namespace, redis_url=redis_via), broker=links.broker)
    working = asyncio.create_task(worker.run())
    await until(lambda: "waiting for Redis" in caplog.text, "it waits for Redis")
    await redis_proxy.start()
    await until(lambda: "waiting for RabbitMQ" in caplog.text, "it waits for RabbitMQ")
    for proxy in links.named("both"):
        await proxy.start()
    assert (await client.ask("hello", "ctx")).turn == 1
    worker.stop()
    await working


async def test_a_worker_stopped_while_it_waits_for_its_servers_ends_at_once(
    links: Links, redis_link: tuple[TcpProxy, str], caplog: pytest.LogCaptureFixture
) -> None:
    redis_proxy, redis_via = redis_link
    await redis_proxy.close()
    worker = Worker(Notebook(), worker_settings("never", redis_url=redis_via), broker=links.broker)
    working = asyncio.create_task(worker.run())
    await until(lambda: "waiting for Redis" in caplog.text, "it waits for Redis")
    worker.stop()
    async with asyncio.timeout(5):
        await working
    assert worker.unfinished == 0
