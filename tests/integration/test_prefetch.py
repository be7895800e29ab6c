"""How much a consumer holds belongs to the queue: why, and that workers which are told otherwise follow it."""

import asyncio
import uuid
from typing import Any

import pytest

from interfaces.brokers import Delivery
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.context import Context
from tests.integration.faults import applied, running, until, worker_settings
from tests.integration.wire import Wire
from worker.running import Worker
from worker.stores.redis import RedisStore

SENT = [str(number) for number in range(40)]
FIRST, LATER = 32, 4


async def test_why_a_consumer_that_holds_less_than_one_before_it_turns_the_order_around(
    broker: RabbitMQBroker, wire: Wire
) -> None:
    """RabbitMQ's own behaviour, without anything of ours between."""
    queue = f"test-{uuid.uuid4().hex}"
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 1000}
    await wire.channel.queue_declare(queue, durable=True, arguments=arguments)
    for number in range(6):
        await wire.channel.basic_publish(str(number).encode(), routing_key=queue)
    held: list[list[bytes]] = []
    for prefetch in (4, 2, 6):
        deliveries: list[Delivery] = []
        channel = await broker.consume(queue, prefetch, deliveries.append)
        await until(lambda d=deliveries, n=prefetch: len(d) == n, "it holds as much as it may")  # type: ignore[misc]  # mypy infers no lambda with defaults
        await channel.close()
        held.append([delivery.body for delivery in deliveries])
    await wire.channel.queue_delete(queue)
    assert held == [[b"0", b"1", b"2", b"3"], [b"0", b"1"], [b"2", b"3", b"0", b"1", b"4", b"5"]]


async def test_workers_follow_the_prefetch_in_use_so_that_order_is_kept(
    amqp_url: str,
    redis_url: str,
    namespace: str,
    client: BrokerClient,
    store: RedisStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = asyncio.Event()

    async def bot(ctx: Context) -> str:
        await go_on.wait()
        text = ctx.last_request.text or ""
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return text

    def worker(prefetch: int) -> Worker:
        settings = worker_settings(namespace, redis_url=redis_url, prefetch=prefetch, drain_timeout=0)
        return Worker(bot, settings, broker=RabbitMQBroker(amqp_url))

    for text in SENT:
        await client.send(text, "ctx")
    for prefetch in (FIRST, LATER, LATER):
        stopped = worker(prefetch)
        async with running(stopped):
            await until(lambda w=stopped: held_by(w) == FIRST, "the worker holds as much as the first one")  # type: ignore[misc]  # as above
        assert stopped.unfinished == 1
    go_on.set()
    async with running(worker(LATER)):
        await applied(store, {"ctx": SENT})
    assert f"SWITCHBOARD_PREFETCH is {LATER}, and namespace {namespace!r} has a prefetch of {FIRST}" in caplog.text


def held_by(worker: Worker) -> int:
    return sum(map(len, worker._interface.unsettled.values()))
