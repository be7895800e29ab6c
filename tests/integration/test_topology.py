"""Declaring the topology: what is missing or different is refused with its name and how to mend it, never half used."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import pytest
from aio_pika.abc import AbstractConnection

from interfaces.brokers.declare import check_version
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import BrokerRefused, ExitCode
from interfaces.topology import SLOTS, Topology, slot
from tests.integration.conftest import StartWorker
from tests.integration.faults import Notebook, ask_once_bound, opened, running, until, worker_settings
from tests.integration.wire import Wire, open_wire
from tests.services.servers import Broker as BrokerServer
from worker.running import Worker

USER = "restricted"
PASSWORD = "secret-word"  # noqa: S105 - of a user that the test makes


def fake_connection(version: object) -> AbstractConnection:
    properties = {} if version is None else {"version": version}
    transport = SimpleNamespace(connection=SimpleNamespace(server_properties=properties))
    return cast("AbstractConnection", SimpleNamespace(transport=transport))


@pytest.mark.parametrize("version", ["3.10.0", "3.10.8", "3.13.7", "4.0.5", "4.1.0-rc.1", "10.0"])
def test_rabbitmq_3_10_and_newer_is_accepted(version: str) -> None:
    assert check_version(fake_connection(version)) == version


@pytest.mark.parametrize("version", ["3.9.29", "3.8", "2.8.7", "unknown", "", None])
def test_an_older_or_unknown_broker_is_refused_with_the_version_needed(version: str | None) -> None:
    with pytest.raises(BrokerRefused, match=r"too old: RabbitMQ 3\.10 or newer"):
        check_version(fake_connection(version))


async def test_every_slot_leads_to_its_queue_and_declaring_again_changes_nothing(
    broker: RabbitMQBroker, topology: Topology, wire: Wire
) -> None:
    await broker.apply(topology)
    probes = 0
    for number in range(0, SLOTS, 37):
        await wire.channel.basic_publish(b"", exchange=topology.requests_exchange, routing_key=str(number))
        probes += 1
    counts = [await wire.count(queue) for queue in topology.shard_queues]
    expected = [sum(topology.queue_of(n) == queue for n in range(0, SLOTS, 37)) for queue in topology.shard_queues]
    assert counts == expected
    assert sum(counts) == probes


@pytest.mark.parametrize("other", [2, 3, 5, 8])
async def test_another_number_of_shards_is_refused_before_anything_is_bound(
    other: int, amqp_url: str, topology: Topology, broker: RabbitMQBroker, wire: Wire
) -> None:
    async with opened(amqp_url) as differing:
        with pytest.raises(BrokerRefused, match="SWITCHBOARD_SHARDS"):
            await differing.apply(Topology(topology.namespace, shards=other))
    for number in (0, 4, 5, 7):
        await wire.channel.basic_publish(b"", exchange=topology.requests_exchange, routing_key=str(number))
    assert sum([await wire.count(queue) for queue in topology.shard_queues]) == 4
    assert await broker.queue_state(Topology(topology.namespace, shards=9).shard_queue(4)) is None


async def test_a_queue_with_other_arguments_is_refused_by_name(amqp_url: str, topology: Topology) -> None:
    async with opened(amqp_url) as differing:
        with pytest.raises(BrokerRefused, match=r"requests\.g1\.\d+.*exists with other properties.*x-max-length"):
            await differing.apply(Topology(topology.namespace, shards=topology.shards, max_length=7))


@pytest.fixture
async def bare_wire(amqp_url: str) -> AsyncIterator[Wire]:
    """A plain AMQP client where nothing is declared yet."""
    async with open_wire(amqp_url) as wire:
        yield wire


async def test_an_exchange_of_another_type_is_refused_by_name(
    broker: RabbitMQBroker, namespace: str, bare_wire: Wire
) -> None:
    topology = Topology(namespace, shards=1)
    await bare_wire.channel.exchange_declare(topology.requests_exchange, exchange_type="fanout", durable=True)
    with pytest.raises(BrokerRefused, match=rf"declaring exchange '{topology.requests_exchange}'.*'type'"):
        await broker.apply(topology)


async def test_a_dead_letter_queue_that_is_no_quorum_queue_is_refused(
    broker: RabbitMQBroker, namespace: str, bare_wire: Wire
) -> None:
    topology = Topology(namespace, shards=1)
    await bare_wire.channel.queue_declare(topology.dead, durable=True)
    with pytest.raises(BrokerRefused, match=rf"declaring queue '{topology.dead}'.*x-queue-type"):
        await broker.apply(topology)


async def test_a_worker_with_another_number_of_shards_uses_those_that_are_there_and_says_how_to_change_them(
    topology: Topology, client: BrokerClient, start_worker: StartWorker
) -> None:
    process = await start_worker("tests.bots.counting:answer", shards=topology.shards + 1)
    await process.ready()
    assert f"{topology.shards} of {topology.shards} shards" in process.log
    assert f"switchboard topology reshard --shards {topology.shards + 1}" in process.log
    assert (await client.ask("hello", "ctx")).turn == 1


async def test_declaring_that_was_interrupted_can_be_repeated(
    broker: RabbitMQBroker, namespace: str, bare_wire: Wire
) -> None:
    topology = Topology(namespace, shards=4)
    for queue in (topology.shard_queue(3), topology.shard_queue(2)):  # declared from the last to the first
        await bare_wire.channel.queue_declare(queue, durable=True, arguments=dict(topology.shard_arguments))
    await broker.apply(topology)
    await bare_wire.channel.basic_publish(b"", exchange=topology.requests_exchange, routing_key="0")
    assert await bare_wire.count(topology.shard_queue(0)) == 1


@pytest.mark.parametrize("shard", [0, 3])
async def test_a_running_worker_restores_any_queue_it_loses(
    shard: int, amqp_url: str, topology: Topology, broker: RabbitMQBroker, client: BrokerClient
) -> None:
    lost = topology.shard_queue(shard)
    ctx_id = next(name for name in map(str, range(100)) if topology.queue_of(slot(name)) == lost)
    async with (
        opened(amqp_url) as consuming,
        running(Worker(Notebook(), worker_settings(topology.namespace), broker=consuming)),
    ):
        await broker.delete_queue(lost)
        await until(lambda: consuming.consumed[lost] == 2, "the queue is consumed again")
        assert (await ask_once_bound(client, "hello", ctx_id)).turn == 1


@pytest.fixture
async def restricted(own_broker: BrokerServer) -> str:
    """URL of a user who may enter and do nothing yet."""
    await own_broker.rabbitmqctl("add_user", USER, PASSWORD)
    await own_broker.rabbitmqctl("set_permissions", USER, "^$", "^$", "^$")
    address = urlsplit(own_broker.url)
    return f"amqp://{USER}:{PASSWORD}@{address.hostname}:{address.port}/"


@pytest.mark.timeout(180)
async def test_each_missing_permission_is_refused_with_the_command_that_grants_it(
    restricted: str, own_broker: BrokerServer
) -> None:
    topology = Topology("mine", shards=2)
    own = r"^mine\..*"

    async def refused_with(configure: str, write: str, read: str) -> str:
        await own_broker.rabbitmqctl("set_permissions", USER, configure, write, read)
        async with opened(restricted) as broker:
            with pytest.raises(BrokerRefused) as caught:
                await broker.apply(topology)
        return str(caught.value)

    nothing = await refused_with("^$", "^$", "^$")
    assert "declaring exchange 'mine.requests.alternate'" in nothing
    only_configure = await refused_with(own, "^$", "^$")
    assert "declaring exchange 'mine.requests'" in only_configure
    no_reading = await refused_with(own, own, "^$")
    assert "exchange 'mine.requests'" in no_reading
    for text in (nothing, only_configure, no_reading):
        assert f"rabbitmqctl set_permissions -p / {USER} CONFIGURE WRITE READ" in text
        assert "a permission is missing" in text
        assert PASSWORD not in text

    await own_broker.rabbitmqctl("set_permissions", USER, own, own + r"|^amq\.default$", own)
    worker = Worker(Notebook(), worker_settings("mine", shards=2), broker=RabbitMQBroker(restricted))
    async with running(worker), BrokerClient(restricted, namespace="mine") as client:
        assert (await client.ask("allowed now", "ctx")).turn == 1


@pytest.mark.timeout(180)
async def test_a_binding_that_is_refused_is_told_and_the_connection_stays(
    restricted: str, own_broker: BrokerServer
) -> None:
    await own_broker.rabbitmqctl("set_permissions", USER, r"^mine\..*", r"^mine\.(?!requests\.g).*", r"^mine\..*")
    topology = Topology("mine", shards=2)
    async with opened(restricted) as broker:
        connection = await broker._publishing.get()
        with pytest.raises(BrokerRefused, match=r"binding slots .* access to queue 'mine\.requests\.g1\.00") as caught:
            await broker.apply(topology)
        assert f"rabbitmqctl set_permissions -p / {USER} CONFIGURE WRITE READ" in str(caught.value)
        assert await broker.queue_state(topology.dead) is not None
        assert await broker._publishing.get() is connection


@pytest.mark.timeout(180)
async def test_a_worker_that_may_not_declare_ends_with_the_code_that_says_so(
    restricted: str, start_worker: StartWorker
) -> None:
    process = await start_worker("tests.bots.counting:answer", amqp_url=restricted)
    assert await process.ended() == ExitCode.BROKER, process.log
    assert "rabbitmqctl set_permissions" in process.log
    assert PASSWORD not in process.log


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong-word"}, "wrong user name or password"),
        ({"user": "nobody"}, "wrong user name or password"),
        ({"vhost": "nowhere"}, "virtual host"),
    ],
)
async def test_what_the_broker_does_not_let_in_is_refused_at_once_and_no_password_shown(
    amqp_url: str, change: dict[str, str], says: str
) -> None:
    address = urlsplit(amqp_url)
    given = {"user": address.username or "guest", "password": address.password or "guest", "vhost": ""} | change
    url = f"amqp://{given['user']}:{given['password']}@{address.hostname}:{address.port}/{given['vhost']}"
    broker = RabbitMQBroker(url)
    with pytest.raises(BrokerRefused, match=says) as caught:
        await broker.open()
    await broker.close()
    assert given["password"] not in str(caught.value).replace("password", "")
