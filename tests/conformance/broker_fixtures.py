"""The two brokers of the conformance suite, each empty for every test.

`connect` gives further brokers to the same server, `topology` is applied to it. Every test gets a namespace of its own
on RabbitMQ, whose queues and exchanges are deleted afterwards.
"""

import uuid
from collections.abc import AsyncIterator

import pytest

from interfaces.brokers import Broker
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.topology import Topology
from tests.conformance.broker_probes import Connect, delete_everything

SHARDS = 4
MOST_SHARDS = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the servers started: they are for the tests that name their fixture, and these ask for it by a parameter."""
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        if item.callspec.params.get("amqp") == "rabbitmq":
            item.fixturenames = [*item.fixturenames, "servers"]


@pytest.fixture(params=["memory", "rabbitmq"])
def amqp(request: pytest.FixtureRequest) -> str | None:
    """URL of the RabbitMQ to test, `None` for the embedded broker."""
    return None if request.param == "memory" else str(request.getfixturevalue("amqp_url"))


@pytest.fixture
async def connect(amqp: str | None) -> AsyncIterator[Connect]:
    server = MemoryServer()
    brokers: list[Broker] = []

    async def connect() -> Broker:
        broker: Broker = MemoryBroker(server) if amqp is None else RabbitMQBroker(amqp)
        brokers.append(broker)
        await broker.open()
        return broker

    yield connect
    for broker in brokers:
        await broker.close()


@pytest.fixture
async def broker(connect: Connect) -> Broker:
    return await connect()


@pytest.fixture
async def namespace(amqp: str | None) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    if amqp is not None:
        await delete_everything(amqp, Topology(namespace=name, shards=MOST_SHARDS))


@pytest.fixture
async def topology(namespace: str, broker: Broker) -> Topology:
    """A small topology, applied."""
    topology = Topology(namespace=namespace, shards=SHARDS)
    await broker.apply(topology)
    return topology
