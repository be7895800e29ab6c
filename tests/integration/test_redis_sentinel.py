"""Redis with a replica and sentinels: whoever becomes the primary is found, and nothing hangs on the one before."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import StoreUnavailable
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.redis_groups import PATIENCE, commit, insist, longest_pause_of_turns, opened_store, version_at
from tests.integration.redis_probes import load, numbered_turn
from tests.services.local import SEARCH_PATH
from tests.services.packages import require_programs
from tests.services.redis_node import wait_for
from tests.services.redis_sentinel import (
    DOWN_AFTER_MILLISECONDS,
    FAILOVER_TIMEOUT_MILLISECONDS,
    PRIMARY,
    RedisWithSentinel,
)
from worker.cli.doctor_redis import check_redis
from worker.settings import load_settings
from worker.stores import Retention
from worker.stores.redis import RedisStore


@pytest.fixture
def redis() -> Iterator[RedisWithSentinel]:
    require_programs({"redis-server": "redis-server"}, SEARCH_PATH)
    servers = RedisWithSentinel(replicas=2)
    try:
        servers.start_now()
        yield servers
    finally:
        servers.remove_now()


@pytest.fixture
async def store(redis: RedisWithSentinel) -> AsyncIterator[RedisStore]:
    async with opened_store(redis.url) as store:
        yield store


async def test_a_killed_primary_is_followed_by_the_one_the_sentinels_choose(
    redis: RedisWithSentinel, store: RedisStore, report: Report
) -> None:
    await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {number}") for number in range(1100)))  # every connection
    await store.commit(numbered_turn(1))
    started = time.monotonic()
    killed = await asyncio.to_thread(redis.kill_primary)
    with pytest.raises(StoreUnavailable):
        await store.commit(numbered_turn(2))
    await insist(lambda: commit(store, 2), StoreUnavailable)
    report(
        f"{time.monotonic() - started:.2f} s from kill -9 of the primary to the first commit on the next "
        f"(down-after-milliseconds {DOWN_AFTER_MILLISECONDS}, failover-timeout {FAILOVER_TIMEOUT_MILLISECONDS})"
    )
    assert redis.primary is not killed
    assert (await load(store, "r3")).version == 2


async def test_a_silent_primary_costs_one_time_limit_and_is_given_up(
    redis: RedisWithSentinel, store: RedisStore
) -> None:
    await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {number}") for number in range(1100)))
    silent = redis.primary
    silent.freeze()
    await asyncio.to_thread(redis.wait_failed_over, silent)
    with pytest.raises(StoreUnavailable):  # a connection of before, whose other end is silent
        await store.commit(numbered_turn(1))
    await store.commit(numbered_turn(1))
    silent.thaw()
    await insist(lambda: commit(store, 2), StoreUnavailable)
    assert version_at(redis.primary, store.key("ctx")) == 2


async def test_a_demoted_primary_is_left_for_the_new_one(redis: RedisWithSentinel, store: RedisStore) -> None:
    await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {number}") for number in range(1100)))
    before = redis.primary
    redis.sentinels[0].ask("SENTINEL", "FAILOVER", "switchboard")
    await asyncio.to_thread(redis.wait_failed_over, before)
    # Until it is demoted it takes writes, which are lost: see `test_durability` for turns that survive this.
    await asyncio.to_thread(wait_for, "a demotion", lambda: before.info("replication")["role"] == "slave")
    await insist(lambda: commit(store, 1), StoreUnavailable)
    assert version_at(redis.primary, store.key("ctx")) == 1


async def test_the_doctor_says_when_too_few_replicas_are_there(redis: RedisWithSentinel) -> None:
    settings = load_settings(redis_url=redis.url, durability="replica", replicas=3)
    findings = {finding.check: finding async for finding in check_redis(settings)}
    assert findings["Redis"].status == "ok"
    assert findings["Redis permissions"].status == "fail"
    assert findings["replicas"].detail == "2 connected, and commits wait for 3: no turn can be committed"


async def test_a_name_the_sentinels_do_not_know_is_told_with_the_ones_they_do(redis: RedisWithSentinel) -> None:
    store = RedisStore(redis.url.replace("/switchboard/", "/other/"), "test", Retention(), timeout=PATIENCE)
    with pytest.raises(StoreUnavailable, match=r"no primary 'other'.*knows 'switchboard' only"):
        await store.open()
    await store.close()


async def test_a_primary_is_lost_in_the_middle_of_turns_and_nothing_else_is(
    redis: RedisWithSentinel, amqp_url: str, client: BrokerClient, topology: Topology, report: Report
) -> None:
    async def kill() -> None:
        killed = await asyncio.to_thread(redis.kill_primary)
        await asyncio.to_thread(redis.wait_failed_over, killed)

    pause = await longest_pause_of_turns(amqp_url, redis.url, client, topology, kill)
    report(f"longest time without a reply {pause:.2f} s (down-after-milliseconds {DOWN_AFTER_MILLISECONDS})")


async def test_a_planned_fail_over_loses_no_turn_that_every_replica_had_to_have(
    redis: RedisWithSentinel, amqp_url: str, client: BrokerClient, topology: Topology, report: Report
) -> None:
    async def demote() -> None:
        before = redis.primary
        redis.sentinels[0].ask("SENTINEL", "FAILOVER", PRIMARY)
        await asyncio.to_thread(redis.wait_failed_over, before)

    # Both: until the old primary is demoted, the replica that was not promoted still confirms what it takes in vain.
    pause = await longest_pause_of_turns(amqp_url, redis.url, client, topology, demote, replicas=2)
    report(f"longest time without a reply {pause:.2f} s")
