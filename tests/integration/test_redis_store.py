"""What only the Redis store can show: its keys, its costs on the wire, its pipelines and its scripts."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from interfaces.errors import RequestRejected, StoreUnavailable
from tests.integration.redis_probes import (
    EPOCH,
    calls_since,
    command_calls,
    eventually,
    is_busy,
    load,
    numbered_turn,
    opened,
    proxied,
)
from worker.stores import Edit, Retention, Turn
from worker.stores.pipelining import FEW_CALLS, MAX_CALLS
from worker.stores.redis import RedisStore
from worker.stores.servers import CONNECTIONS


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    async with opened(redis_url) as store:
        yield store


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_a_context_is_one_key_placed_by_its_id_alone(store: RedisStore, client: Redis) -> None:
    for ctx_id in ("plain", "a}b", "{x}", "🙂" * 50, "\x00"):
        await load(store, "r1", ctx_id=ctx_id)
        await store.commit(numbered_turn(1, ctx_id=ctx_id))
        prefix = store.key("").decode().removesuffix("{}")
        tag = store.key(ctx_id).decode().removeprefix(prefix)[1:-1]
        assert key_slot(store.key(ctx_id)) == key_slot(tag.encode())
        keys = [key async for key in client.scan_iter(match=f"{prefix}*", count=1000)]
        assert keys == [store.key(ctx_id)]
        await store.delete(ctx_id)


def test_an_ordinary_id_is_readable_in_its_key() -> None:
    store = RedisStore("redis://localhost", "switchboard", Retention())
    assert store.key("telegram:4711 Zoë") == "switchboard:ctx:{telegram:4711 Zoë}".encode()
    assert store.key("100% {x}\n") == b"switchboard:ctx:{100%25 %7Bx%7D%0A}"


async def test_a_first_load_leaves_a_key_with_a_ttl(store: RedisStore, client: Redis) -> None:
    await load(store, "r1")
    assert 0 < await client.ttl(store.key("ctx")) <= Retention().ttl_seconds


async def test_load_and_commit_both_renew_the_ttl(store: RedisStore, client: Redis) -> None:
    key = store.key("ctx")
    await load(store, "r1")
    await client.expire(key, 100)
    await store.commit(numbered_turn(1))
    assert await client.ttl(key) > 100
    await client.expire(key, 100)
    await load(store, "r2")
    assert await client.ttl(key) > 100


async def test_an_epoch_is_the_servers_clock_even_where_the_key_was_lost(store: RedisStore, client: Redis) -> None:
    seconds, micros = await client.time()
    first = await store.claim()
    assert first >= seconds * 1_000_000 + micros
    key = store.key("").decode().removesuffix(":ctx:{}") + ":epoch"
    assert await client.ttl(key) > 0
    await client.delete(key)
    assert await store.claim() > first


async def test_epochs_grow_even_where_the_clock_went_back(store: RedisStore, client: Redis) -> None:
    key = store.key("").decode().removesuffix(":ctx:{}") + ":epoch"
    ahead = 4_000_000_000_000_000
    await client.set(key, ahead)
    assert [await store.claim() for _ in range(3)] == [ahead + 1, ahead + 2, ahead + 3]


async def test_a_turn_costs_the_same_bytes_at_turn_20_and_at_turn_20_000(redis_url: str) -> None:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via) as store:

        async def cost(number: int) -> tuple[int, int]:
            before = proxy.sent, proxy.received
            loaded = await load(store, f"request {number:08d}")
            assert (loaded.version, len(loaded.turns)) == (number - 1, 5)
            await store.commit(numbered_turn(number))
            return proxy.sent - before[0], proxy.received - before[1]

        await commit_range(store, 1, 20)
        early = await cost(20)
        await commit_range(store, 21, 20_000)
        assert await cost(20_000) == early


async def commit_range(store: RedisStore, first: int, stop: int) -> None:
    """Commit turns `first` to `stop - 1`; those of one pipeline run in the order they were made."""
    for start in range(first, stop, MAX_CALLS):
        numbers = range(start, min(start + MAX_CALLS, stop))
        await asyncio.gather(*(store.commit(numbered_turn(number)) for number in numbers))


async def test_a_commit_to_a_dialog_of_50_000_imported_turns_does_what_it_does_to_a_short_one(
    store: RedisStore, redis_url: str
) -> None:
    async def calls_of(turn: Turn) -> dict[str, int]:
        before = await command_calls(redis_url)
        await store.commit(turn)
        calls = await calls_since(redis_url, before)
        return {name: calls.get(name, 0) for name in ("hget", "hset", "hdel")}

    await store.commit(numbered_turn(1))
    short = await calls_of(numbered_turn(2))
    await store.delete("ctx")
    await store.edit(Edit("ctx", "e1", 0, 0, 20_000, b"{}", {20_000: b"{}"}))
    await store.edit(Edit("ctx", "e2", 20_000, 1, 50_000, b"{}", {50_000: b"{}"}))
    assert await calls_of(replace(numbered_turn(50_001), revision=2)) == short
    assert (await store.read_outbox("ctx")).replies.keys() == {numbered_turn(50_001).request_id}


async def test_no_command_looks_at_more_than_it_names(store: RedisStore, redis_url: str) -> None:
    before = await command_calls(redis_url)
    await store.claim()
    await load(store, "request 1")
    await store.commit(numbered_turn(1))
    await store.forget_start("ctx", "request 1")
    await store.peek("ctx", 5)
    await store.read_turns("ctx", [1])
    await store.delete("ctx")
    used = set(await calls_since(redis_url, before)) - {"info", "client|setinfo", "hello", "auth", "select"}
    exact = {"evalsha", "hmget", "hset", "hget", "hdel", "hexists", "expire", "unlink", "get", "set", "time"}
    assert used <= exact


async def test_a_load_and_a_commit_are_one_call_each(store: RedisStore, redis_url: str) -> None:
    before = await command_calls(redis_url)
    await load(store, "r1")
    await store.commit(numbered_turn(1))
    assert (await calls_since(redis_url, before))["evalsha"] == 2


async def test_calls_of_one_tick_travel_as_one_write_on_one_connection(redis_url: str, client: Redis) -> None:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via) as store:
        await load(store, "warm", ctx_id="warm")
        connections, before = proxy.accepted, (await client.info("stats"))["total_reads_processed"]
        await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {n}") for n in range(50)))
        # Two reads at most for the loads (the proxy may cut the write in two), and one for this INFO.
        assert (await client.info("stats"))["total_reads_processed"] - before <= 3
        assert proxy.accepted == connections


async def test_calls_go_on_beside_a_connection_that_has_fallen_silent(redis_url: str) -> None:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via, patience=2.0) as store:
        await load(store, "warm", ctx_id="warm")
        connections = proxy.accepted
        proxy.silence()
        stuck = [asyncio.create_task(load(store, "r1", ctx_id=f"ctx {n}")) for n in range(FEW_CALLS + 1)]
        await eventually(lambda: is_busy(store, len(stuck)), pause=0)
        await load(store, "r2", ctx_id="other")
        assert proxy.accepted == connections + 1
        assert not any(task.done() for task in stuck)
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)


async def test_more_calls_than_all_pipelines_hold_are_all_answered(store: RedisStore) -> None:
    count = MAX_CALLS * (CONNECTIONS + 2) + 7
    loaded = await asyncio.gather(*(load(store, f"r{n}", ctx_id=f"ctx {n}") for n in range(count)))
    assert [context.starts for context in loaded] == [1] * count
    assert all(await asyncio.gather(*(_delete_start(store, f"ctx {n}") for n in range(count))))


async def _delete_start(store: RedisStore, ctx_id: str) -> bool:
    return not await store.delete(ctx_id)


async def test_one_key_of_another_type_fails_its_own_call_only(store: RedisStore, client: Redis) -> None:
    await client.set(store.key("foreign"), "not a context", ex=60)
    ids = ["before", "foreign", "after"]
    outcomes = await asyncio.gather(*(load(store, "r1", ctx_id=ctx_id) for ctx_id in ids), return_exceptions=True)
    assert isinstance(outcomes[1], RequestRejected)
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == [outcomes[1]]


async def test_a_cancelled_caller_does_not_disturb_the_others(store: RedisStore) -> None:
    tasks = [asyncio.create_task(load(store, "r1", ctx_id=f"ctx {n}")) for n in range(20)]
    await asyncio.sleep(0)
    tasks[3].cancel()  # before its pipeline was sent
    await eventually(lambda: is_busy(store), pause=0)
    tasks[5].cancel()  # while it is under way
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, asyncio.CancelledError)]
    assert cancelled == [3, 5]
    assert (await load(store, "r1", ctx_id="ctx 3", attempt="b")).starts == 1
    assert [(await load(store, "r1", ctx_id=f"ctx {n}", attempt="b")).starts for n in (4, 5)] == [2, 2]


async def test_a_flushed_script_cache_is_filled_again_and_only_refused_calls_are_sent_again(
    store: RedisStore, client: Redis, redis_url: str
) -> None:
    await store.commit(numbered_turn(1))
    before = await command_calls(redis_url)
    await client.script_flush()
    calls: list[Awaitable[object]] = [load(store, "r1", ctx_id=f"ctx {n}") for n in range(10)]
    calls += [store.commit(numbered_turn(2)), store.read_turns("ctx", [1])]
    outcomes = await asyncio.gather(*calls)
    assert outcomes[-1] == {1: b"turn 00000001"}
    used = await calls_since(redis_url, before)
    assert used["script|load"] == 2
    # Commands HMGET: three of each load, as the contexts are new, one of the commit, and one of read_turns, which was
    # not sent again.
    assert used["hmget"] == 10 * 3 + 1 + 1


async def test_turns_go_on_while_the_script_cache_is_flushed_again_and_again(store: RedisStore, client: Redis) -> None:
    done = asyncio.Event()
    flushes = 0

    async def flush() -> None:
        nonlocal flushes
        while not done.is_set():
            await client.script_flush()
            flushes += 1

    async def dialog(ctx_id: str) -> None:
        for number in range(1, 41):
            while True:
                try:
                    loaded = await load(store, f"request {number:08d}", ctx_id=ctx_id)
                    await store.commit(numbered_turn(number, ctx_id=ctx_id))
                except StoreUnavailable:  # flushed once more between the loading of the script and its use
                    continue
                assert loaded.version == number - 1
                break

    flushing = asyncio.create_task(flush())
    await asyncio.gather(*(dialog(f"ctx {n}") for n in range(20)))
    done.set()
    await flushing
    assert flushes > 10


async def test_windows_made_smaller_are_caught_up_with_at_a_bounded_cost(redis_url: str, client: Redis) -> None:
    async with opened(redis_url, Retention(outbox=200)) as wide:
        namespace = wide.key("").decode().removesuffix(":ctx:{}")
        await commit_range(wide, 1, 201)
        fields = await client.hlen(wide.key("ctx"))
        async with opened(redis_url, Retention(outbox=2, max_turns=3), namespace=namespace) as narrow:
            await narrow.commit(numbered_turn(201))
            # One commit adds three fields and drops at most 64 turns and 64 replies of two fields.
            assert fields - await client.hlen(wide.key("ctx")) <= 3 * 64
            await commit_range(narrow, 202, 210)
            names = await client.hkeys(wide.key("ctx"))
    left = {name.decode() if isinstance(name, bytes) else name for name in names}
    assert {name for name in left if name[0] in "tdr" and ":" in name} == {
        *("t:207", "t:208", "t:209", "d:208", "d:209", "r:request 00000208", "r:request 00000209"),
    }


async def test_a_steady_dialog_keeps_a_steady_number_of_fields(redis_url: str, client: Redis) -> None:
    async with opened(redis_url, Retention(outbox=4, max_turns=6)) as store:
        await commit_range(store, 1, 20)
        before = await client.hlen(store.key("ctx"))
        await commit_range(store, 20, 300)
        assert await client.hlen(store.key("ctx")) == before


async def test_closing_gives_up_calls_under_way(redis_url: str) -> None:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via) as store:
        proxy.pause()
        calls = [asyncio.create_task(load(store, f"r{n}", ctx_id=f"ctx {n}")) for n in range(3)]
        await eventually(lambda: is_busy(store))
        started = time.monotonic()
        await store.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
        assert time.monotonic() - started < 3
        with pytest.raises(StoreUnavailable):
            await store.load("ctx", "r1", epoch=EPOCH, attempt="a", history=1)
