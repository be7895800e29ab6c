"""Both servers away together, and names that do not resolve, at the start and later."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.integration.faults import Notebook, all_settled, linked, until, worker_settings
from tests.integration.outages import STRICT, gate, ride_out
from tests.integration.redis_probes import proxied
from tests.services.proxy import TcpProxy
from worker.running import Worker
from worker.stores.redis import RedisStore


@asynccontextmanager
async def closed(*proxies: TcpProxy) -> AsyncIterator[None]:
    """Every link is cut, and new ones are refused."""
    for proxy in proxies:
        await proxy.close()
    yield
    for proxy in proxies:
        await proxy.start()


async def test_both_servers_away_together_are_waited_out(
    amqp_url: str,
    redis_url: str,
    topology: Topology,
    client: BrokerClient,
    store: RedisStore,
    broker: RabbitMQBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bot = gate()
    async with proxied(redis_url) as (redis_proxy, via), linked(amqp_url) as links:
        settings = worker_settings(topology.namespace, redis_url=via, **STRICT)
        worker = Worker(bot, settings, broker=links.broker)
        fault = closed(redis_proxy, *links.named("both"))
        lines = "store unavailable (attempt 2)", f"cannot consume {topology.shard_queue(0)} (attempt 2)"
        await ride_out(worker, bot, client, store, fault, noticed=lambda: all(line in caplog.text for line in lines))
    await all_settled(broker, topology)


class Resolver:
    """Names of the test's own for this machine, which resolve or do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.knows = {"redis.test", "rabbitmq.test"}
        self.asked_in_vain: Counter[str] = Counter()
        resolve = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            if name in self.knows:
                return resolve("127.0.0.1", *arguments, **options)
            if str(name).endswith(".test"):
                self.asked_in_vain[name] += 1
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return resolve(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    @asynccontextmanager
    async def gone(self, proxies: list[TcpProxy]) -> AsyncIterator[None]:
        """No name resolves; what is connected is cut, so that somebody asks."""
        known, self.knows = self.knows, set()
        for proxy in proxies:
            await proxy.cut()
        yield
        self.knows = known
        assert self.asked_in_vain.keys() == known


def named(url: str, name: str) -> str:
    return url.replace(urlsplit(url).hostname or "", name)


async def test_names_that_stop_resolving_are_waited_for(
    amqp_url: str,
    redis_url: str,
    topology: Topology,
    client: BrokerClient,
    store: RedisStore,
    broker: RabbitMQBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bot, resolver = gate(), Resolver(monkeypatch)
    async with proxied(redis_url) as (redis_proxy, redis_via), proxied(amqp_url) as (proxy, via):
        settings = worker_settings(topology.namespace, redis_url=named(redis_via, "redis.test"), **STRICT)
        worker = Worker(bot, settings, broker=RabbitMQBroker(named(via, "rabbitmq.test")))
        queue = topology.shard_queue(0)
        lines = (
            "store unavailable (attempt 2), trying again: ConnectionError: Error -3 connecting to redis.test:",
            f"cannot consume {queue} (attempt 2): connecting to RabbitMQ at rabbitmq.test:",
            "Temporary failure in name resolution",
        )
        await ride_out(
            *(worker, bot, client, store, resolver.gone([redis_proxy, proxy])),
            noticed=lambda: all(line in caplog.text for line in lines),
        )
    await all_settled(broker, topology)


async def test_names_that_do_not_resolve_at_the_start_are_waited_for(
    amqp_url: str,
    redis_url: str,
    topology: Topology,
    client: BrokerClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.knows = set()
    settings = worker_settings(topology.namespace, redis_url=named(redis_url, "redis.test"), **STRICT)
    worker = Worker(Notebook(), settings, broker=RabbitMQBroker(named(amqp_url, "rabbitmq.test")))
    asking = asyncio.create_task(client.ask("before", "ctx"))
    working = asyncio.create_task(worker.run())
    for server, name in (("Redis", "redis.test"), ("RabbitMQ", "rabbitmq.test")):
        await until(lambda server=server: f"waiting for {server} (attempt 2): " in caplog.text, "it waits")  # type: ignore[misc]  # mypy cannot type a lambda's default
        assert resolver.asked_in_vain[name] > 1
        resolver.knows.add(name)
    assert (await asking).turn == 1
    worker.stop()
    await working
