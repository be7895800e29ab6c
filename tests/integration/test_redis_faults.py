"""The Redis store when Redis or the network fails: the loss is reported, repeating is exact, it recovers by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from interfaces.errors import StoreRefused, StoreUnavailable
from tests.integration.redis_probes import (
    Link,
    calls_since,
    command_calls,
    eventually,
    is_busy,
    load,
    lose_answer,
    numbered_turn,
    opened,
    proxied,
)
from tests.services.servers import Server
from worker.stores import Loaded, Retention, Turn, refusals
from worker.stores.redis import RedisStore


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    """A store whose connections go through a proxy, warm."""
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via, patience=0.5) as store:
        yield proxy, store
        proxy.resume()


@pytest.fixture
async def own(own_redis: Server) -> AsyncIterator[tuple[Redis, RedisStore]]:
    """A store on a server of its own, and a client that may do anything to that server."""
    async with Redis.from_url(own_redis.url) as client, opened(own_redis.url) as store:
        yield client, store


async def test_a_commit_repeated_after_a_lost_answer_returns_the_reply_that_was_stored(
    link: Link, redis_url: str
) -> None:
    _, store = link
    before = await command_calls(redis_url)
    await lose_answer(link, lambda: store.commit(numbered_turn(1)))
    again = Turn("ctx", "request 00000001", 0, main=b"", turns={1: b"other"}, reply=b"other")
    assert await store.commit(again) == b"reply 00000001"
    assert (await calls_since(redis_url, before))["evalsha"] == 2
    loaded = await load(store, "r2")
    assert (loaded.version, loaded.turns) == (1, {1: b"turn 00000001"})


async def test_a_load_repeated_after_a_lost_answer_counts_one_start(link: Link) -> None:
    _, store = link
    await lose_answer(link, lambda: load(store, "r1", attempt="a"))
    await lose_answer(link, lambda: load(store, "r1", attempt="a"))
    assert (await load(store, "r1", attempt="a")).starts == 1
    assert (await load(store, "r1", attempt="b")).starts == 2


async def test_an_epoch_whose_answer_was_lost_is_never_given_again(link: Link) -> None:
    _, store = link
    first = await store.claim()
    await lose_answer(link, store.claim)
    assert await store.claim() >= first + 2


async def test_starts_forgotten_with_a_lost_answer_are_forgotten(link: Link) -> None:
    _, store = link
    await load(store, "r1", attempt="a")
    await lose_answer(link, lambda: store.forget_start("ctx", "r1"))
    await store.forget_start("ctx", "r1")
    assert (await load(store, "r1", attempt="b")).starts == 1


async def test_a_deletion_with_a_lost_answer_has_deleted(link: Link) -> None:
    _, store = link
    await store.commit(numbered_turn(1))
    await lose_answer(link, lambda: store.delete("ctx"))
    assert await store.delete("ctx") is False
    assert await store.peek("ctx", 1) is None


async def test_a_server_that_is_away_is_unavailable_and_the_store_recovers_by_itself(link: Link) -> None:
    proxy, store = link
    await store.commit(numbered_turn(1))
    await proxy.close()
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            await load(store, "r2")
        assert caught.value.__cause__ is not None
    await proxy.start()
    assert (await load(store, "r2")).version == 1


async def test_connections_cut_while_idle_are_replaced_without_an_error(link: Link) -> None:
    proxy, store = link
    await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {n}") for n in range(600)))
    accepted = proxy.accepted
    await proxy.cut()
    assert (await load(store, "r1", ctx_id="ctx 1")).starts == 1
    assert proxy.accepted > accepted


async def test_connections_cut_during_calls_fail_those_and_no_later_ones(link: Link) -> None:
    proxy, store = link
    proxy.pause()
    calls = [asyncio.create_task(load(store, "r1", ctx_id=f"ctx {n}")) for n in range(5)]
    await eventually(lambda: is_busy(store))
    await proxy.cut()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5
    proxy.resume()
    repeated = await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {n}") for n in range(5)))
    assert [loaded.starts for loaded in repeated] == [1] * 5


async def test_a_half_open_connection_is_given_up_within_the_timeout(link: Link) -> None:
    proxy, store = link
    proxy.pause()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await load(store, "r1")
    assert 0.4 < time.monotonic() - started < 3
    proxy.resume()
    assert (await load(store, "r1")).starts == 1


async def test_nothing_hangs_or_is_lost_while_connections_are_cut_again_and_again(link: Link) -> None:
    proxy, store = link
    failures = 0
    done = asyncio.Event()

    async def cut() -> None:
        while not done.is_set():
            await proxy.cut()
            await asyncio.sleep(0.01)

    async def repeat(call: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal failures
        while True:
            try:
                return await call()
            except StoreUnavailable:
                failures += 1
                await asyncio.sleep(0.005)

    async def dialog(ctx_id: str) -> None:
        for number in range(1, 31):
            turn = numbered_turn(number, ctx_id=ctx_id)
            loaded: Loaded = await repeat(lambda turn=turn: load(store, turn.request_id, ctx_id=ctx_id))  # type: ignore[misc]  # mypy cannot type a lambda's default
            assert (loaded.version, loaded.starts) == (number - 1, 1)
            assert await repeat(lambda turn=turn: store.commit(turn)) == turn.reply  # type: ignore[misc]  # as above

    cutting = asyncio.create_task(cut())
    async with asyncio.timeout(60):
        await asyncio.gather(*(dialog(f"ctx {n}") for n in range(20)))
    done.set()
    await cutting
    assert failures > 0


async def test_a_demoted_primary_is_unavailable_and_its_connections_are_dropped(own: tuple[Redis, RedisStore]) -> None:
    client, store = own
    await asyncio.gather(*(load(store, "r1", ctx_id=f"ctx {n}") for n in range(1100)))
    mine = await client.client_id()

    async def connections() -> set[int]:
        return {int(entry["id"]) for entry in await client.client_list() if int(entry["id"]) != mine}

    before = await connections()
    await client.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="ReadOnly"):
        await store.commit(numbered_turn(1))
    await client.replicaof("NO", "ONE")
    assert await store.commit(numbered_turn(1)) == b"reply 00000001"
    assert before
    assert not before & await connections()


async def test_a_server_out_of_memory_is_unavailable_and_nothing_is_half_done(own: tuple[Redis, RedisStore]) -> None:
    client, store = own
    await store.commit(numbered_turn(1))
    contents = await client.hgetall(store.key("ctx"))
    await client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="OutOfMemory"):
        await store.commit(numbered_turn(2))
    with pytest.raises(StoreUnavailable, match="OutOfMemory"):
        await load(store, "r2")
    assert await client.hgetall(store.key("ctx")) == contents
    await client.config_set("maxmemory", 0)
    assert await store.commit(numbered_turn(2)) == b"reply 00000002"


async def test_a_start_is_taken_back_by_a_server_out_of_memory(own: tuple[Redis, RedisStore]) -> None:
    """Else a turn that a worker leaves to the next one, as it stops, would count as one that ended the process."""
    client, store = own
    await load(store, "r1")
    await client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="OutOfMemory"):
        await load(store, "r1", attempt="b")
    await store.forget_start("ctx", "r1", "a")
    assert (await store.read_outbox("ctx")).started is None
    await client.config_set("maxmemory", 0)


async def test_a_server_busy_with_a_script_is_unavailable(own: tuple[Redis, RedisStore], own_redis: Server) -> None:
    client, store = own
    await client.config_set("busy-reply-threshold", 1)
    async with Redis.from_url(own_redis.url) as stuck:
        loop = asyncio.create_task(stuck.execute_command("EVAL", "while true do end", "0"))  # type: ignore[no-untyped-call]  # redis-py has no types here
        await eventually_busy(client)
        with pytest.raises(StoreUnavailable, match="BUSY"):
            await load(store, "r1")
        await client.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            await loop
    assert (await load(store, "r1", attempt="b")).version == 0


async def eventually_busy(client: Redis) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ResponseError, match="BUSY"):
            await ping_forever(client)


async def ping_forever(client: Redis) -> None:
    while True:
        await client.ping()


async def test_a_restarted_server_is_found_again_with_its_script_cache_empty(
    own: tuple[Redis, RedisStore], own_redis: Server
) -> None:
    _, store = own
    await store.commit(numbered_turn(1))
    await own_redis.stop()
    with pytest.raises(StoreUnavailable):
        await load(store, "r2")
    await own_redis.start()
    assert (await load(store, "r2")).version in (0, 1)  # whether it kept its data is its configuration


async def test_an_address_where_nobody_listens_is_unavailable(redis_url: str) -> None:
    async with proxied(redis_url) as (proxy, via):
        await proxy.close()
        with pytest.raises(StoreUnavailable):
            await RedisStore(via, "test", Retention(), timeout=0.5).open()


async def test_wrong_credentials_and_missing_permissions_are_refused(
    own: tuple[Redis, RedisStore], own_redis: Server
) -> None:
    client, _ = own
    port = urlsplit(own_redis.url).port
    await client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+ping", "+info")  # type: ignore[no-untyped-call]  # redis-py has no types here
    for credentials in ("reader:wrong", "nobody:secret", "reader:secret"):
        store = RedisStore(f"redis://{credentials}@127.0.0.1:{port}/0", "test", Retention())
        with pytest.raises(StoreRefused) as caught:
            await store.open()
        assert "secret" not in str(caught.value)
        await store.close()


async def test_what_was_allowed_is_waited_for_and_refused_for_good_after_a_while(
    own: tuple[Redis, RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, store = own
    await load(store, "r1")
    await client.execute_command("ACL", "SETUSER", "default", "resetpass", ">new")  # type: ignore[no-untyped-call]  # redis-py has no types here
    await store._pipeline.clients[0].connection_pool.disconnect()
    with pytest.raises(StoreUnavailable, match="refused what was allowed before"):
        await load(store, "r2")
    with pytest.raises(StoreUnavailable, match="refused what was allowed before"):
        await store.claim()  # a first call, by somebody who was let in before
    monkeypatch.setattr(refusals, "REFUSED_SECONDS", 0.0)
    with pytest.raises(StoreRefused, match="Redis asks for a password"):
        await load(store, "r2")
    monkeypatch.undo()
    await client.execute_command("ACL", "SETUSER", "default", "nopass")  # type: ignore[no-untyped-call]  # as above
    assert (await load(store, "r2")).starts == 1


async def test_a_permission_that_was_never_there_is_refused_at_once(own: tuple[Redis, RedisStore]) -> None:
    client, store = own
    await client.execute_command("ACL", "SETUSER", "default", "resetkeys", f"~{store._workers.decode()}")  # type: ignore[no-untyped-call]  # as above
    try:
        await store.announce("worker", b"info", 5)
        with pytest.raises(StoreRefused, match="NoPermissionError"):
            await load(store, "r1")
    finally:
        await client.execute_command("ACL", "SETUSER", "default", "allkeys")  # type: ignore[no-untyped-call]  # as above


@pytest.mark.parametrize(("version", "accepted"), [("6.2.14", False), ("7.0.0", True), ("7.2.4", True), ("10.1", True)])
async def test_a_server_older_than_7_0_is_refused(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, version: str, accepted: bool
) -> None:
    store = RedisStore(redis_url, "test", Retention())

    async def info(_section: str) -> dict[str, str]:
        return {"redis_version": version}

    monkeypatch.setattr(store._pipeline.clients[0], "info", info)
    if accepted:
        await store.open()
    else:
        with pytest.raises(StoreRefused, match=version):
            await store.open()
    await store.close()
