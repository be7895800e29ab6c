"""A Redis Cluster: calls reach the node of their key, and go on while slots move and primaries die."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from redis.crc import key_slot

from interfaces.client import BrokerClient
from interfaces.errors import StoreRefused, StoreUnavailable
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.redis_groups import PATIENCE, commit, insist, longest_pause_of_turns, opened_store, version_at
from tests.integration.redis_probes import calls_since, command_calls, load, numbered_turn
from tests.services.local import SEARCH_PATH
from tests.services.packages import require_programs
from tests.services.redis_cluster import NODE_TIMEOUT_MILLISECONDS, RedisCluster
from worker.cli.doctor_redis import check_redis
from worker.settings import load_settings
from worker.stores import Retention
from worker.stores.pipelining import TickPipeline
from worker.stores.redis import RedisStore


@pytest.fixture(scope="module")
def started() -> Iterator[RedisCluster]:
    require_programs({"redis-server": "redis-server"}, SEARCH_PATH)
    cluster = RedisCluster()
    try:
        cluster.start_now()
        yield cluster
    finally:
        cluster.remove_now()


@pytest.fixture
def cluster(started: RedisCluster) -> Iterator[RedisCluster]:
    """The cluster, complete again and empty after each test."""
    yield started
    started.start_now()
    for node in started.primaries:
        node.ask("FLUSHALL")


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    async with opened_store(cluster.url) as store:
        yield store


def ids_of_one_slot(slot: int, how_many: int) -> list[str]:
    """Context ids whose keys lie in `slot`."""
    found: list[str] = []
    for number in count():
        if key_slot(f"context {number}".encode()) == slot:
            found.append(f"context {number}")
        if len(found) == how_many:
            return found
    raise AssertionError


async def test_calls_of_one_tick_go_to_their_nodes_as_one_pipeline_each(
    cluster: RedisCluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"ctx {number}" for number in range(300)]
    await asyncio.gather(*(load(store, "r1", ctx_id=ctx_id) for ctx_id in ids))
    sent: list[int] = []
    send = TickPipeline._send

    async def counted(self: TickPipeline, calls: Sequence[Any], before: Sequence[Any] = ()) -> list[Any]:
        sent.append(len(calls))
        return await send(self, calls, before)

    monkeypatch.setattr(TickPipeline, "_send", counted)
    before = [await command_calls(node.url) for node in cluster.primaries]
    await asyncio.gather(*(store.commit(numbered_turn(1, ctx_id=ctx_id)) for ctx_id in ids))
    calls = [(await calls_since(node.url, b))["evalsha"] for node, b in zip(cluster.primaries, before, strict=True)]
    assert sum(calls) == 300
    assert sorted(calls) == sorted(sent)
    assert len(sent) == len(cluster.primaries)
    for ctx_id in ids[:10]:
        assert version_at(cluster.owner(ctx_id), store.key(ctx_id)) == 1


async def test_one_node_named_as_a_single_server_is_refused_with_the_way_to_name_a_cluster(
    cluster: RedisCluster,
) -> None:
    store = RedisStore(cluster.nodes[0].url, "test", Retention(), timeout=PATIENCE)
    await store.open()
    with pytest.raises(StoreRefused, match="named by redis\\+cluster://"):
        await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {number}") for number in range(20)))
    await store.close()


async def test_a_single_server_named_as_a_cluster_is_refused(redis_url: str) -> None:
    store = RedisStore(redis_url.replace("redis://", "redis+cluster://"), "test", Retention(), timeout=PATIENCE)
    with pytest.raises(StoreRefused, match="cluster support disabled"):
        await store.open()
    await store.close()


async def test_the_doctor_looks_at_every_primary(cluster: RedisCluster) -> None:
    settings = load_settings(redis_url=cluster.url, durability="replica", replicas=1)
    findings = [finding async for finding in check_redis(settings)]
    assert "3 primaries" in findings[0].detail
    checked = {finding.check for finding in findings}
    for node in cluster.primaries:
        assert {f"persistence of 127.0.0.1:{node.port}", f"replicas of 127.0.0.1:{node.port}"} <= checked
    assert {finding.status for finding in findings} == {"ok"}


async def test_a_slot_moves_to_another_node_during_traffic_and_no_call_fails(
    cluster: RedisCluster, store: RedisStore
) -> None:
    slot = key_slot(b"anything")
    first, late = ids_of_one_slot(slot, 8)[:6], ids_of_one_slot(slot, 8)[6:]

    async def dialog(ctx_id: str, turns: range) -> None:
        for number in turns:
            assert (await load(store, f"request {number:08d}", ctx_id=ctx_id)).version == number - 1
            await commit(store, number, ctx_id=ctx_id)

    await asyncio.gather(*(dialog(ctx_id, range(1, 21)) for ctx_id in first))
    source, target = cluster.start_to_move(slot)
    moved = 0
    while moved < len(first):
        moved += cluster.move_keys(slot, source, target, 1)
        await asyncio.gather(*(dialog(ctx_id, range(16 + 5 * moved, 21 + 5 * moved)) for ctx_id in first))
    await asyncio.gather(*(dialog(ctx_id, range(1, 6)) for ctx_id in late))
    asked = source.info("errorstats")
    cluster.finish_move(slot, source, target)
    await asyncio.gather(*(dialog(ctx_id, range(51, 56)) for ctx_id in first))
    await asyncio.gather(*(dialog(ctx_id, range(6, 9)) for ctx_id in late))
    assert "errorstat_ASK" in asked
    assert "errorstat_MOVED" in source.info("errorstats")
    for ctx_id, turns in [*((ctx_id, 55) for ctx_id in first), *((ctx_id, 8) for ctx_id in late)]:
        assert version_at(target, store.key(ctx_id)) == turns


async def test_a_node_that_lost_its_scripts_is_given_them_even_where_it_only_takes_over_a_slot(
    cluster: RedisCluster, store: RedisStore
) -> None:
    slot = key_slot(b"something else")
    source, target = cluster.start_to_move(slot)
    target.ask("SCRIPT", "FLUSH")
    [ctx_id] = ids_of_one_slot(slot, 1)
    await commit(store, 1, ctx_id=ctx_id)
    cluster.finish_move(slot, source, target)
    assert version_at(target, store.key(ctx_id)) == 1


async def test_a_killed_primary_is_followed_by_its_replica_and_the_other_nodes_go_on(
    cluster: RedisCluster, store: RedisStore
) -> None:
    owner = cluster.owner("ctx")
    other = next(f"ctx {number}" for number in count() if cluster.owner(f"ctx {number}") is not owner)
    await commit(store, 1)
    await asyncio.to_thread(cluster.kill_primary, "ctx")
    with pytest.raises(StoreUnavailable):
        await commit(store, 2)
    await commit(store, 1, ctx_id=other)
    assert await insist(lambda: commit(store, 2), StoreUnavailable) > 0
    assert (await load(store, "next")).version == 2


async def test_a_silent_primary_is_given_up_for_its_replica(cluster: RedisCluster, store: RedisStore) -> None:
    await commit(store, 1)
    silent = cluster.owner("ctx")
    silent.freeze()
    try:
        await insist(lambda: commit(store, 2), StoreUnavailable)
        assert (await load(store, "next")).version == 2
    finally:
        silent.thaw()


async def test_a_primary_is_lost_in_the_middle_of_turns_and_nothing_else_is(
    cluster: RedisCluster, amqp_url: str, client: BrokerClient, topology: Topology, report: Report
) -> None:
    async def kill() -> None:
        killed = await asyncio.to_thread(cluster.kill_primary, "context 1")
        await asyncio.to_thread(cluster.wait_failed_over, killed)
        await killed.start()  # as the replica without which the new primary may not acknowledge anything

    pause = await longest_pause_of_turns(amqp_url, cluster.url, client, topology, kill)
    report(f"longest time without a reply {pause:.2f} s (cluster-node-timeout {NODE_TIMEOUT_MILLISECONDS})")
