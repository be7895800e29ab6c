"""How many functions a worker calls for a turn, those of its libraries and those written in C included.

Counted and not timed, so that a change which makes turns dearer is seen on any machine, however busy; what that is in
time is measured by `make bench-compare`. A batch's calls are shared by its turns, and batches differ: hence the margin.
"""

import asyncio
import uuid
from typing import Any

import pytest
import uvloop

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.context import Context
from interfaces.envelope import encode_request
from interfaces.messages import Message
from interfaces.topology import Topology
from tests.bots import chatsky_counting
from tests.conformance.broker_probes import delete_everything
from tests.conformance.store_probes import delete_namespace
from tests.integration.conftest import SHARDS, Report
from tests.integration.faults import running, worker_settings
from tests.integration.wire import open_wire
from tests.services.call_count import counting_calls
from worker.running import Worker

WARM, MEASURED, CONTEXTS = 200, 800, 100
RECORDED = {"handler": 573, "pipeline": 2780}
"""Calls of a turn, by CPython 3.11 on uvloop: to be set anew by whoever makes them fewer."""
MARGIN = 1.03
SECONDS = 100


async def wait(ctx: Context) -> str:
    """A handler that waits: its turn passes through the event loop once more than one that answers at once."""
    await asyncio.sleep(0.005)
    return f"{ctx.current_turn_id}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("bot", "name"), [(wait, "handler"), (chatsky_counting.pipeline, "pipeline")], ids=list(RECORDED)
)
def test_a_turn_takes_no_more_calls_than_recorded(
    bot: Any, name: str, amqp_url: str, redis_url: str, report: Report
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # What a start takes is in both, and goes out with the difference.
        warm, all_ = (runner.run(calls_of(bot, turns, amqp_url, redis_url)) for turns in (WARM, WARM + MEASURED))
    calls = (all_ - warm) / MEASURED
    report(f"{calls:.0f} calls a turn, {RECORDED[name]} recorded")
    assert calls <= MARGIN * RECORDED[name]


async def calls_of(bot: Any, turns: int, amqp_url: str, redis_url: str) -> int:
    """The calls of a worker that starts, and finds so many requests on its queues."""
    topology = Topology(f"test-{uuid.uuid4().hex[:20]}", SHARDS)
    try:
        async with open_wire(amqp_url) as wire:
            reply_queue = await wire.new_queue()
            await publish(turns, amqp_url, topology, reply_queue)
            settings = worker_settings(topology.namespace, amqp_url=amqp_url, redis_url=redis_url)
            calls = await counted(Worker(bot, settings), turns)
            assert await wire.count(reply_queue) == turns
    finally:
        await delete_everything(amqp_url, topology)
        await delete_namespace(redis_url, topology.namespace)
    return calls


async def publish(count: int, amqp_url: str, topology: Topology, reply_queue: str) -> None:
    broker = RabbitMQBroker(amqp_url)
    await broker.open()
    try:
        await broker.apply(topology)
        for number in range(count):
            ctx_id, request_id = f"user {number % CONTEXTS}", f"request {number}"
            message = Message("hello")
            await broker.publish(encode_request(topology, message, ctx_id, request_id=request_id, reply_to=reply_queue))
    finally:
        await broker.close()


async def counted(worker: Worker, turns: int) -> int:
    """The calls until the worker has settled so many requests."""
    with counting_calls() as calls:
        async with running(worker), asyncio.timeout(SECONDS):
            while sum(worker.telemetry.metrics.turns_total.values()) < turns:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
            return calls.number  # How it stops, by chance in the middle of a heartbeat or not, is no part of a turn.
