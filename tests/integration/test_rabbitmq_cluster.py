"""Several RabbitMQ nodes by their URLs: one that is away is passed over, and one that dies costs seconds, not requests.

Two real workers serve a cluster of three nodes; then the node that leads most shards is killed under load.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import BrokerRefused, BrokerUnavailable
from interfaces.topology import Topology
from tests.availability.fleet import Fleet
from tests.availability.stream import Stream, pauses
from tests.chaos.history import now
from tests.conformance.store_probes import delete_namespace
from tests.integration.conftest import Report
from tests.integration.faults import until
from tests.services.rabbitmq_cluster import Cluster
from tests.services.servers import free_port

ATTEMPTS = 8
"""With two nodes in random order, a lucky choice every time has a chance of 1 in 256."""

PAUSE_SECONDS = 5.0
"""A generous bound for a machine that does other things: `make availability` shows that it takes less than 2 s."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes; a test that kills one starts it again."""
    cluster = Cluster()
    try:
        cluster.start_now()
        yield cluster
    finally:
        cluster.remove_now()


@pytest.fixture
async def topology(cluster: Cluster, redis_url: str) -> AsyncIterator[Topology]:
    """Six shards on the cluster, in a namespace of the test's own."""
    topology = Topology(namespace=f"test-{uuid4().hex[:20]}", shards=6)
    broker = RabbitMQBroker(cluster.url)
    try:
        await broker.open()
        await broker.apply(topology)
    finally:
        await broker.close()
    yield topology
    await delete_namespace(redis_url, topology.namespace)


async def leader_of_most(cluster: Cluster, topology: Topology) -> tuple[int, set[str]]:
    """The node that leads most shards, and those."""
    leaders = await cluster.leaders()
    [(node, _)] = Counter(leaders[queue] for queue in topology.shard_queues).most_common(1)
    return node, {queue for queue in topology.shard_queues if leaders[queue] == node}


@pytest.mark.timeout(300)
async def test_losing_the_node_that_leads_shards_loses_doubles_and_reorders_nothing(
    cluster: Cluster, redis_url: str, topology: Topology, tmp_path: Path, report: Report
) -> None:
    async with Fleet(cluster.url, redis_url, topology, size=2) as fleet:
        async with Stream(cluster.url, redis_url, topology, tmp_path, every=0.05) as stream:
            await stream.answered(now())
            node, led = await leader_of_most(cluster, topology)
            killed = now()
            await cluster.kill(node)
            try:
                await stream.answered(now())
                longest = {
                    queue: pauses((answer.began for answer in stream.answers[queue]), killed, now())[0]
                    for queue in topology.shard_queues
                }
                leaders = await cluster.leaders()
            finally:
                await cluster.start(node)
            await cluster.in_sync()
            await stream.answered(now())
            violations = await stream.stop()
        assert len(fleet.pids) == 2
    assert violations == []
    assert len(led) >= 2
    assert all(leaders[queue] != node for queue in led & leaders.keys())
    report(f"longest pause of {len(led)} shards led by the lost node {max(longest[queue] for queue in led):.2f} s")
    assert max(longest.values()) < PAUSE_SECONDS


@pytest.mark.timeout(300)
async def test_who_asks_gets_an_answer_while_the_node_with_its_reply_queue_is_down(
    cluster: Cluster, redis_url: str, topology: Topology, report: Report
) -> None:
    """Such a queue is on one node alone; the client takes another one, and asks for what it still waits for again."""
    answered: Counter[int] = Counter()
    stop = asyncio.Event()
    longest = 0.0

    async def ask(client: BrokerClient, user: int) -> None:
        nonlocal longest
        while not stop.is_set():
            asked = time.monotonic()
            reply = await client.ask("next", f"user {user}", timeout=20)
            longest = max(longest, time.monotonic() - asked)
            answered[user] += 1
            assert reply.turn == answered[user]

    def everybody_got(more: int) -> bool:
        return all(answered[user] >= before[user] + more for user in range(10))

    async with (
        Fleet(cluster.url, redis_url, topology, size=2),
        BrokerClient(cluster.url, namespace=topology.namespace) as client,
        asyncio.TaskGroup() as group,
    ):
        before = Counter[int]()
        for user in range(10):
            group.create_task(ask(client, user))
        await until(lambda: everybody_got(5), "everybody has asked")
        node = await node_of_reply_queue(cluster, topology)
        await cluster.kill(node)
        try:
            before = Counter(answered)
            await until(lambda: everybody_got(20), "everybody is answered while the node is down", seconds=15)
        finally:
            await cluster.start(node)
        stop.set()
    report(f"longest wait for an answer {longest:.2f} s")
    assert longest < PAUSE_SECONDS


async def node_of_reply_queue(cluster: Cluster, topology: Topology) -> int:
    listed = await cluster.nodes[0].rabbitmqctl("-q", "list_queues", "name", "type", "pid")
    [queue] = [line for line in listed.splitlines() if line.startswith(topology.reply_prefix)]
    [number] = [number for number, node in enumerate(cluster.nodes) if node.node in queue]
    return number


def nobody() -> str:
    return f"amqp://guest:hunter2@127.0.0.1:{free_port()}/"


async def test_a_node_that_is_away_is_passed_over(amqp_url: str) -> None:
    for _ in range(ATTEMPTS):
        broker = RabbitMQBroker(f"{nobody()},{amqp_url}")
        try:
            await broker.open()
            assert await broker.queue_state("none such") is None
        finally:
            await broker.close()


async def test_with_every_node_away_each_is_named_and_no_password() -> None:
    nodes = [nobody() for _ in range(3)]
    broker = RabbitMQBroker(",".join(nodes))
    with pytest.raises(BrokerUnavailable) as caught:
        await broker.open()
    assert all(node.split("@")[1].rstrip("/") in str(caught.value) for node in nodes)
    assert "hunter2" not in str(caught.value)
    await broker.close()


async def test_credentials_that_a_node_refuses_are_an_error_and_not_passed_over(amqp_url: str) -> None:
    broker = RabbitMQBroker(",".join([amqp_url.replace("guest:guest", "guest:hunter2")] * 2))
    with pytest.raises(BrokerRefused) as caught:
        await broker.open()
    assert "hunter2" not in str(caught.value)
    await broker.close()
