"""Durability levels: a commit counts once its copies exist, a found reply too, and a slow one is repeated exactly."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import StoreRefused, StoreUnavailable
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.faults import Notebook, applied, running, until, worker_settings
from tests.integration.redis_groups import PATIENCE, commit, insist, opened_store, version_at
from tests.integration.redis_probes import calls_since, command_calls, load, numbered_turn
from tests.services.local import SEARCH_PATH
from tests.services.packages import require_programs
from tests.services.redis_node import RedisNode, wait_for
from worker.running import Worker
from worker.stores import Durability, Retention
from worker.stores.redis import RedisStore


class Pair:
    """A primary and a replica, without anybody who would fail over."""

    def __init__(self) -> None:
        self.primary = RedisNode("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        follow = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replica = RedisNode("--save", "", "--appendonly", "yes", *follow)

    def start(self) -> None:
        self.primary.start_now()
        self.replica.start_now()
        wait_for("a replica in step", lambda: self.primary.info("replication")["slave0"]["state"] == "online")
        # It is called online when it has been sent everything, and may be at rewriting its own file for a while.
        self.primary.ask("SET", "in step", "1")
        wait_for("an answer of the replica", lambda: self.primary.ask("WAIT", "1", "1000") == 1)
        self.primary.ask("FLUSHALL")

    def remove(self) -> None:
        self.replica.remove_now()
        self.primary.remove_now()


@pytest.fixture(scope="module")
def started() -> Iterator[Pair]:
    require_programs({"redis-server": "redis-server"}, SEARCH_PATH)
    pair = Pair()
    try:
        pair.start()
        yield pair
    finally:
        pair.remove()


@pytest.fixture
def pair(started: Pair) -> Iterator[Pair]:
    """The pair, awake and empty after each test."""
    yield started
    started.replica.thaw()
    started.primary.ask("FLUSHALL")


@pytest.fixture
async def store(pair: Pair) -> AsyncIterator[RedisStore]:
    async with opened_store(pair.primary.url, durability=Durability.REPLICA) as store:
        yield store


async def test_a_commit_is_on_the_replica_when_it_returns(pair: Pair, store: RedisStore) -> None:
    for number in range(1, 51):
        # On a busy machine the replica may take longer than a commit waits: it is the one that returns that counts.
        await insist(lambda number=number: commit(store, number), StoreUnavailable)  # type: ignore[misc]  # mypy infers no lambda with defaults
        assert version_at(pair.replica, store.key("ctx")) == number


async def test_commits_of_one_tick_wait_once(pair: Pair, store: RedisStore) -> None:
    before = await command_calls(pair.primary.url)
    await asyncio.gather(*(store.commit(numbered_turn(1, ctx_id=f"ctx {number}")) for number in range(100)))
    calls = await calls_since(pair.primary.url, before)
    assert (calls["evalsha"], calls["wait"]) == (100, 1)


async def test_without_its_replica_a_commit_is_unavailable_and_its_repetition_exact(
    pair: Pair, store: RedisStore
) -> None:
    await commit(store, 1)
    pair.replica.freeze()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="on 0 of 1 replicas after 500 ms"):
        await commit(store, 2)
    assert 0.4 < time.monotonic() - started < PATIENCE
    with pytest.raises(StoreUnavailable):  # committed before, and still nowhere else
        await commit(store, 2)
    pair.replica.thaw()
    await insist(lambda: commit(store, 2), StoreUnavailable)
    assert version_at(pair.replica, store.key("ctx")) == 2
    loaded = await load(store, "next")
    assert (loaded.version, loaded.turns) == (2, {1: b"turn 00000001", 2: b"turn 00000002"})


async def test_a_reply_found_by_another_worker_waits_for_the_replica_too(pair: Pair, store: RedisStore) -> None:
    pair.replica.freeze()
    with pytest.raises(StoreUnavailable):
        await commit(store, 1)
    # Connections that wrote nothing of it, as a worker has that takes over.
    async with opened_store(pair.primary.url, durability=Durability.REPLICA) as successor:
        with pytest.raises(StoreUnavailable, match="on 0 of 1 replicas"):
            await load(successor, "request 00000001")
        with pytest.raises(StoreUnavailable, match="on 0 of 1 replicas"):
            await commit(successor, 1)
        pair.replica.thaw()
        await insist(lambda: load(successor, "request 00000001"), StoreUnavailable)
        assert version_at(pair.replica, store.key("ctx")) == 1
        assert (await load(successor, "request 00000001")).reply == b"reply 00000001"


async def test_loads_go_on_while_commits_wait(pair: Pair, store: RedisStore) -> None:
    await commit(store, 1)
    pair.replica.freeze()
    waiting = [asyncio.create_task(store.commit(numbered_turn(1, ctx_id=f"ctx {number}"))) for number in range(2000)]
    for number in range(20):
        assert (await load(store, f"r{number}")).version == 1
    assert not any(commit.done() for commit in waiting)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}


async def test_more_replicas_than_there_are_is_unavailable(pair: Pair) -> None:
    store = RedisStore(
        pair.primary.url, "test", Retention(), timeout=PATIENCE, durability=Durability.REPLICA, replicas=2
    )
    await store.open()
    with pytest.raises(StoreUnavailable, match="on 1 of 2 replicas"):
        await commit(store, 1)
    await store.close()


async def test_a_turn_is_not_answered_before_its_replica_has_it(
    pair: Pair, amqp_url: str, client: BrokerClient, topology: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    bot = Notebook()
    settings = worker_settings(
        topology.namespace, redis_url=pair.primary.url, redis_timeout=PATIENCE, durability=Durability.REPLICA
    )
    async with running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):
        await client.ask("0", "ctx")
        pair.replica.freeze()
        asking = asyncio.create_task(client.ask("1", "ctx", timeout=60))
        await until(lambda: "on 0 of 1 replicas" in caplog.text, "the commit waited in vain")
        assert not asking.done()
        pair.replica.thaw()
        assert (await asking).turn == 2
    async with opened_store(pair.primary.url, topology.namespace) as store:
        await applied(store, {"ctx": ["0", "1"]})
    assert bot.runs == {"ctx: 0": 1, "ctx: 1": 1}


@pytest.mark.parametrize("durability", [Durability.DISK, Durability.REPLICA_DISK])
async def test_disk_levels_are_given_by_servers_that_can_tell_and_refused_of_others(
    pair: Pair, durability: Durability, report: Report
) -> None:
    version = str(pair.primary.info("server")["redis_version"])
    if tuple(map(int, version.split("."))) < (7, 2):
        with pytest.raises(StoreRefused, match=f"Redis {version[:3]} cannot tell what is on its disk"):
            async with opened_store(pair.primary.url, durability=durability):
                raise AssertionError
        report(f"Redis {version}: refused")
        return
    # With `appendfsync everysec`, the default, a commit waits for the fsync of its second.
    async with opened_store(pair.primary.url, durability=durability, patience=5) as store:
        await commit(store, 1)
        before, started = await command_calls(pair.primary.url), time.monotonic()
        await asyncio.gather(*(commit(store, number) for number in range(2, 52)))
        seconds = time.monotonic() - started
        assert (await calls_since(pair.primary.url, before))["waitaof"] == 1
        pair.replica.freeze()
        if durability is Durability.DISK:
            await commit(store, 52)
        else:
            with pytest.raises(StoreUnavailable, match="on the disks of 0 of 1 replicas"):
                await commit(store, 52)
    pair.primary.ask("CONFIG", "SET", "appendonly", "no")
    try:
        with pytest.raises(StoreRefused, match="appendonly yes"):
            async with opened_store(pair.primary.url, durability=durability):
                raise AssertionError
    finally:
        pair.primary.ask("CONFIG", "SET", "appendonly", "yes")
    report(f"Redis {version}: 50 commits of one tick took {seconds:.2f} s with appendfsync everysec")
