"""The doctor's checks of RabbitMQ. Nothing of the topology is created or changed; the probe's queue is deleted again.

Called by `doctor` alone, which is why it may use the client library directly.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity
from pydantic import SecretStr

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.brokers.declare import check_version, raw_channel
from interfaces.brokers.link import Link
from interfaces.brokers.mapping import amqp_errors
from interfaces.brokers.nodes import node_urls
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import BrokerRefused, BrokerUnavailable, Unroutable
from interfaces.topology import Arguments, ExchangeKind, Topology
from worker.cli.doctor_tls import check_rabbitmq_tls
from worker.cli.findings import Finding, fail, ok, warn
from worker.cli.plans import look_up_plan
from worker.cli.servers import is_memory, shown
from worker.plan import Plan
from worker.settings import Settings

CONNECT_SECONDS: Final = 10.0
PROBE_QUEUE_LIFE: Final = timedelta(minutes=1)
NO_SLOT: Final = "doctor"
"""A routing key that no request has: a message under it comes back, which proves that publishing is allowed."""

APPLY: Final = "switchboard topology apply"
MEND_REFUSED: Final = (
    "where a permission is missing, give it; where properties differ, set SWITCHBOARD_MAX_LENGTH as it was, or delete "
    f"the queue once it is empty and run {APPLY}"
)


async def check_rabbitmq(settings: Settings) -> AsyncGenerator[Finding]:
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
        plan = await look_up_plan(broker, settings)
        topology = settings.topology if plan is None else plan.current.of(settings.topology)
        found = await _check_topology(await link.get(), topology)
        yield found
        if plan is not None:
            yield _check_shards(settings, plan)
        yield await _check_permissions(broker, settings, is_declared=found.status == "ok")
        if found.status == "ok":
            yield await _check_consumers(broker, topology)
            yield await _check_dead_letters(broker, topology)
    except BrokerUnavailable as error:
        yield fail("RabbitMQ", str(error), "start it, or correct host and port in SWITCHBOARD_AMQP_URL")
    except BrokerRefused as error:
        yield fail("RabbitMQ", str(error), "mend it on the broker, or correct SWITCHBOARD_AMQP_URL")
    finally:
        await link.close()
        await broker.close()


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


async def _check_topology(connection: AbstractConnection, topology: Topology) -> Finding:
    check = "topology"
    wanted = _wanted(topology)
    try:
        missing = [name for name, (passive, _) in wanted.items() if not await _exists(connection, passive)]
        if len(missing) == len(wanted):
            return warn(
                check, f"nothing is declared in namespace {topology.namespace!r}", f"{APPLY}, or start a worker"
            )
        if missing:
            return fail(check, f"missing: {', '.join(missing)}", APPLY)
        with amqp_errors("comparing the topology"):
            for _, declaration in wanted.values():
                await _on_channel(connection, declaration)
    except BrokerRefused as error:
        return fail(check, str(error), MEND_REFUSED)
    return ok(check, f"namespace {topology.namespace!r}, {topology.shards} shards, as it should be")


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


Call = Callable[[AbstractChannel], Awaitable[Any]]


def _wanted(topology: Topology) -> dict[str, tuple[Call, Call]]:
    """By name: the passive declaration, and the one RabbitMQ refuses where a thing exists with other properties."""
    wanted = {
        f"exchange {exchange}": _declarations_of_exchange(exchange, *kind)
        for exchange, kind in topology.exchanges.items()
    }
    for queue in topology.shard_queues:
        wanted[queue] = _declarations_of_queue(queue, topology.shard_arguments)
    wanted[topology.dead] = _declarations_of_queue(topology.dead, topology.dead_arguments)
    return wanted


def _declarations_of_exchange(exchange: str, kind: ExchangeKind, arguments: Arguments) -> tuple[Call, Call]:
    return (
        lambda channel: channel.exchange_declare(exchange, passive=True),
        lambda channel: channel.exchange_declare(exchange, exchange_type=kind, durable=True, arguments=dict(arguments)),
    )


def _declarations_of_queue(queue: str, arguments: Arguments) -> tuple[Call, Call]:
    return (
        lambda channel: channel.queue_declare(queue, passive=True),
        lambda channel: channel.queue_declare(queue, durable=True, arguments=dict(arguments)),
    )


async def _exists(connection: AbstractConnection, passive: Call) -> bool:
    with amqp_errors("looking for the topology"):
        try:
            await _on_channel(connection, passive)
        except ChannelNotFoundEntity:
            return False
    return True


async def _on_channel(connection: AbstractConnection, call: Call) -> None:
    # The broker closes a channel on which something was refused, so each call has its own.
    channel = await raw_channel(connection)
    try:
        await call(channel)
    finally:
        await channel.close()


async def _check_permissions(broker: RabbitMQBroker, settings: Settings, *, is_declared: bool) -> Finding:
    check = "RabbitMQ permissions"
    topology = settings.topology
    queue = f"{topology.reply_prefix}doctor-{uuid4()}"
    try:
        try:
            bindings = [(topology.replies_exchange, NO_SLOT)] if is_declared else []
            await broker.declare_reply_queue(queue, PROBE_QUEUE_LIFE, bindings, replicated=True)
            await _pass_a_message(broker, queue, settings.publish_timeout)
            if is_declared:
                await _publish_request_to_nobody(broker, topology)
        finally:
            await broker.delete_queue(queue)
    except BrokerRefused as error:
        return fail(check, str(error), f"allow this user to configure, write and read {topology.namespace}.*")
    except (BrokerUnavailable, TimeoutError) as error:
        detail = f"a message through queue {queue!r} did not arrive: {str(error) or 'no answer in time'}"
        return fail(check, detail, "look for alarms (memory, disk) and unavailable nodes: rabbitmq-diagnostics alarms")
    return ok(check, "declare, publish, consume, delete")


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
