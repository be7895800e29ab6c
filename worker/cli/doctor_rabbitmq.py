"""The doctor's checks of RabbitMQ. Nothing of the topology is created or changed; the probe's queue is deleted again.

Called by `doctor` alone, which is why it may use the client library directly.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

from pydantic import SecretStr

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.brokers.declare import check_version
from interfaces.brokers.link import Link
from interfaces.brokers.nodes import node_urls
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import BrokerRefused, BrokerUnavailable, StoreRefused, Unroutable
from interfaces.topology import Topology
from worker.cli.doctor_management import check_management
from worker.cli.doctor_tls import check_rabbitmq_tls
from worker.cli.doctor_topology import APPLY, compare, is_all, missing
from worker.cli.findings import Finding, fail, ok, skip, warn
from worker.cli.management import Management
from worker.cli.plans import look_up_plan
from worker.cli.servers import is_memory, shown
from worker.generations import find_plan
from worker.plan import Plan
from worker.settings import Settings

CONNECT_SECONDS: Final = 10.0
PROBE_QUEUE_LIFE: Final = timedelta(minutes=1)
OWNER: Final = "worker"
"""Whose reply queue the probe's is by its name: one that a worker's user may declare, and an operator's."""
PERMISSIONS: Final = "deploy/rabbitmq/permissions.json"
NO_SLOT: Final = "doctor"
"""A routing key that no request has: a message under it comes back, which proves that publishing is allowed."""


async def check_rabbitmq(settings: Settings, management_url: str | None = None) -> AsyncGenerator[Finding]:
    """Check one thing after the other, and stop at the first that makes the others pointless."""
    if is_memory(settings.amqp_url):
        yield ok("RabbitMQ", "embedded (memory://): one process, nothing kept")
        return
    url = settings.amqp_url.get_secret_value()
    broker = RabbitMQBroker(url, publish_timeout=settings.publish_timeout, connect_timeout=CONNECT_SECONDS)
    link = Link(url, "doctor", CONNECT_SECONDS)
    try:
        await broker.open()
        for node in node_urls(url):
            yield await _check_node(node)
        for finding in check_rabbitmq_tls(settings.amqp_url):
            yield finding
        plan = await _find_plan(broker, settings)
        topology = settings.topology if plan is None else plan.current.of(settings.topology)
        lacking = await missing(await link.get(), topology)
        for finding in [_lacking(lacking, topology)] if lacking else await compare(await link.get(), topology):
            yield finding
        if plan is not None:
            yield _check_shards(settings, plan)
        for finding in await _check_permissions(broker, settings, is_declared=not lacking):
            yield finding
        if not lacking:
            yield await _check_consumers(broker, topology)
            yield await _check_dead_letters(broker, topology)
            is_moving = plan is not None and plan.previous is not None
            async for finding in _look_behind(settings, management_url, topology, is_moving=is_moving):
                yield finding
    except BrokerUnavailable as error:
        yield fail("RabbitMQ", str(error), "start it, or correct host and port in SWITCHBOARD_AMQP_URL")
    except BrokerRefused as error:
        yield fail("RabbitMQ", str(error), "mend it on the broker, or correct SWITCHBOARD_AMQP_URL")
    finally:
        await link.close()
        await broker.close()


async def _find_plan(broker: RabbitMQBroker, settings: Settings) -> Plan | None:
    try:
        return await look_up_plan(broker, settings)
    except StoreRefused:
        return await find_plan(broker, settings.topology)  # That the stored one cannot be read is told with Redis.


def _lacking(lacking: Sequence[str], topology: Topology) -> Finding:
    if is_all(lacking, topology):
        detail = f"nothing is declared in namespace {topology.namespace!r}"
        return warn("topology", detail, f"{APPLY}, or start a worker")
    return fail("topology", f"missing: {', '.join(lacking)}", APPLY)


async def _look_behind(
    settings: Settings, url: str | None, topology: Topology, *, is_moving: bool
) -> AsyncGenerator[Finding]:
    if url is None:
        detail = "RabbitMQ shows them by its management plugin only"
        yield skip("bindings, policies", detail, "switchboard doctor --management-url http://HOST:15672")
        return
    async for finding in check_management(Management(url, settings), topology, is_moving=is_moving):
        yield finding


async def _check_node(url: str) -> Finding:
    """Whether this one node answers. That any does was found out before, so one that is away is only a warning."""
    link = Link(url, "doctor", CONNECT_SECONDS)
    try:
        version = check_version(await link.get())
    except BrokerUnavailable as error:
        return warn("RabbitMQ", str(error), "start this node, or correct its URL in SWITCHBOARD_AMQP_URL")
    finally:
        await link.close()
    return ok("RabbitMQ", f"version {version} at {shown(SecretStr(url))}")


def _check_shards(settings: Settings, plan: Plan) -> Finding:
    check, shards = "shards", plan.current.shards
    if plan.previous is not None:
        detail = (
            f"a change from {plan.previous.shards} to {shards} is under way; unless somebody is at it, contexts wait"
        )
        return warn(check, detail, f"switchboard topology reshard --shards {shards}")
    if unfollowed := settings.unfollowed(plan.current.of(settings.topology)):
        told, command = unfollowed[0]
        return warn(check, told, f"set it to what is used, or run {command}")
    return ok(check, f"{shards}, in generation {plan.current.number}")


async def _check_permissions(broker: RabbitMQBroker, settings: Settings, *, is_declared: bool) -> list[Finding]:
    """First what a worker needs, in a queue that a worker may have; then what only clients and operators need."""
    check = "RabbitMQ permissions"
    topology = settings.topology
    queue = f"{topology.reply_prefix}{OWNER}.doctor-{uuid4()}"
    try:
        try:
            await broker.declare_reply_queue(queue, PROBE_QUEUE_LIFE, [], replicated=True)
            await _pass_a_message(broker, queue, settings.publish_timeout)
            beyond = await _refused_beyond(broker, topology, queue) if is_declared else None
        finally:
            await broker.delete_queue(queue)
    except BrokerRefused as error:
        mend = f"allow this user what {PERMISSIONS} gives a worker, or all of {topology.namespace}.*"
        return [fail(check, str(error), mend)]
    except (BrokerUnavailable, TimeoutError) as error:
        detail = f"a message through queue {queue!r} did not arrive: {str(error) or 'no answer in time'}"
        mend = "look for alarms (memory, disk) and unavailable nodes: rabbitmq-diagnostics alarms"
        return [fail(check, detail, mend)]
    findings = [ok(check, "declare, publish, consume, delete")]
    if beyond is not None:
        mend = "none where this is a worker's user; else run it as the operator, or allow all of the namespace"
        findings.append(skip(check, f"it may not send requests or read replies, as workers need not: {beyond}", mend))
    return findings


async def _refused_beyond(broker: RabbitMQBroker, topology: Topology, queue: str) -> BrokerRefused | None:
    try:
        bindings = [(topology.replies_exchange, NO_SLOT)]
        await broker.declare_reply_queue(queue, PROBE_QUEUE_LIFE, bindings, replicated=True)
        await _publish_request_to_nobody(broker, topology)
    except BrokerRefused as error:
        return error
    return None


async def _pass_a_message(broker: RabbitMQBroker, queue: str, seconds: float) -> None:
    arrived: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    def deliver(delivery: Delivery) -> None:
        if not arrived.done():
            arrived.set_result(delivery)

    channel = await broker.consume(queue, 1, deliver)
    try:
        await broker.publish(Outgoing("", queue, b"{}", Properties(message_id=str(uuid4()))))
        async with asyncio.timeout(seconds):
            await channel.ack(await arrived)
    finally:
        await channel.close()


async def _publish_request_to_nobody(broker: RabbitMQBroker, topology: Topology) -> None:
    try:
        await broker.publish(Outgoing(topology.requests_exchange, NO_SLOT, b"{}", Properties(message_id=str(uuid4()))))
    except Unroutable:
        return


async def _check_consumers(broker: RabbitMQBroker, topology: Topology) -> Finding:
    idle = []
    for queue in topology.shard_queues:
        state = await broker.queue_state(queue)
        if state is None or not state.consumers:
            idle.append(queue)
    if idle:
        detail = f"{len(idle)} of {topology.shards} shards have no consumer: their requests wait"
        return warn("consumers", detail, "switchboard run APP")
    return ok("consumers", f"every one of {topology.shards} shards is consumed")


async def _check_dead_letters(broker: RabbitMQBroker, topology: Topology) -> Finding:
    state = await broker.queue_state(topology.dead)
    if state is not None and state.messages:
        detail = f"{state.messages} in queue {topology.dead!r}"
        return warn("dead letters", detail, "look at them with `switchboard dead list`, mend the bot or the sender")
    return ok("dead letters", "none")
