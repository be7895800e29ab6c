"""Fixtures of the tests on real servers: a namespace of its own for each test, worker processes, clients, raw AMQP.

Whatever a test declares and stores in its namespace is gone afterwards, and no worker outlives its test.
"""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from interfaces.arrivals import Arrivals
from interfaces.brokers import Delivery
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.conformance.broker_probes import delete_everything
from tests.conformance.store_probes import delete_namespace
from tests.conftest import FIGURE
from tests.integration.wire import Wire, open_wire
from tests.services.faulty_worker import Where
from tests.services.processes import WorkerProcess
from worker.stores import Retention
from worker.stores.redis import RedisStore

SHARDS = 4

StartWorker = Callable[..., Awaitable[WorkerProcess]]
StartFaultyWorker = Callable[[str, Where, str], Awaitable[WorkerProcess]]
Report = Callable[[str], None]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Adds a line to the figures that are shown at the end of the run."""

    def report(figure: str) -> None:
        request.node.user_properties.append((FIGURE, figure))

    return report


@pytest.fixture
async def namespace(amqp_url: str, redis_url: str) -> AsyncIterator[str]:
    """A name nobody else uses. All of the topology, and all keys, are deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    yield name
    for generation in (1, 2):
        await delete_everything(amqp_url, Topology(name, SHARDS, generation))
    await delete_namespace(redis_url, name)


@pytest.fixture
async def broker(amqp_url: str, namespace: str) -> AsyncIterator[RabbitMQBroker]:
    """A connection of the product's own kind."""
    broker = RabbitMQBroker(amqp_url)
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
async def topology(broker: RabbitMQBroker, namespace: str) -> Topology:
    """The namespace's topology, declared, so that requests can be published before a worker runs."""
    topology = Topology(namespace=namespace, shards=SHARDS)
    await broker.apply(topology)
    return topology


@pytest.fixture
async def processes(namespace: str) -> AsyncIterator[list[WorkerProcess]]:
    """The processes of a test; whatever still runs at its end is killed, before the namespace is deleted."""
    processes: list[WorkerProcess] = []
    yield processes
    for process in processes:
        await process.kill()


@pytest.fixture
def worker_settings(namespace: str, amqp_url: str, redis_url: str) -> dict[str, str]:
    """The environment of a worker of this test."""
    return {
        "SWITCHBOARD_AMQP_URL": amqp_url,
        "SWITCHBOARD_REDIS_URL": redis_url,
        "SWITCHBOARD_NAMESPACE": namespace,
        "SWITCHBOARD_SHARDS": str(SHARDS),
    }


@pytest.fixture
def start_worker(processes: list[WorkerProcess], worker_settings: dict[str, str]) -> StartWorker:
    """Starts `switchboard run APP`; further settings by their names without prefix. Wait with `ready()`."""

    async def start_worker(app: str, **settings: object) -> WorkerProcess:
        further = {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        process = await WorkerProcess.start(["-m", "worker.cli", "run", app], worker_settings | further)
        processes.append(process)
        return process

    return start_worker


@pytest.fixture
def start_faulty_worker(processes: list[WorkerProcess], worker_settings: dict[str, str]) -> StartFaultyWorker:
    """Starts a worker that dies by SIGKILL at a point of the turn of a request."""

    async def start_faulty_worker(app: str, where: Where, request_id: str) -> WorkerProcess:
        arguments = ["-m", "tests.services.faulty_worker", app, where, request_id]
        process = await WorkerProcess.start(arguments, worker_settings)
        processes.append(process)
        return process

    return start_faulty_worker


@pytest.fixture
async def client(amqp_url: str, topology: Topology) -> AsyncIterator[BrokerClient]:
    """An upstream client."""
    async with BrokerClient(amqp_url, namespace=topology.namespace) as client:
        yield client


@pytest.fixture
async def wire(amqp_url: str, topology: Topology) -> AsyncIterator[Wire]:
    """A plain AMQP client."""
    async with open_wire(amqp_url) as wire:
        yield wire


@pytest.fixture
async def store(redis_url: str, namespace: str) -> AsyncIterator[RedisStore]:
    """The contexts of the namespace, to look into."""
    store = RedisStore(redis_url, namespace, Retention())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def redelivered(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each request was delivered again to the workers in this process."""
    redelivered: Counter[str] = Counter()
    original = Arrivals.deliver

    def deliver(arrivals: Arrivals, delivery: Delivery) -> None:
        redelivered[delivery.properties.message_id or ""] += delivery.redelivered
        original(arrivals, delivery)

    monkeypatch.setattr(Arrivals, "deliver", deliver)
    return redelivered
