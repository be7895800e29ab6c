"""Round trips: which connection they go over, and when it is given up."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
import uvloop
from redis import exceptions
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from interfaces.errors import StoreUnavailable
from tests.integration.redis_probes import eventually
from worker.stores import Retention, round_trips
from worker.stores.address import parse_address
from worker.stores.clients import primary_client, server_client
from worker.stores.redis import RedisStore
from worker.stores.round_trips import RoundTrips

WHO = (b"CLIENT", b"ID")


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


class Trips(RoundTrips):
    """Round trips, and how often the pool was asked for a connection."""

    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self.asked = 0

    async def _from_pool(self) -> Any:
        self.asked += 1
        return await super()._from_pool()

    async def who(self) -> int:
        [number] = await self.make([WHO])
        return int(number)


@asynccontextmanager
async def opened(redis_url: str) -> AsyncIterator[Trips]:
    client = server_client(parse_address(redis_url), 5, 3)
    yield Trips(client)
    await client.aclose()


@pytest.fixture
async def trips(redis_url: str) -> AsyncIterator[Trips]:
    async with opened(redis_url) as trips:
        yield trips


async def living(other: Redis) -> set[int]:
    return {int(client["id"]) for client in await other.client_list()}


async def test_a_connection_used_lately_is_used_again_without_asking_the_pool(trips: Trips) -> None:
    assert len({await trips.who() for _ in range(5)}) == 1
    assert trips.asked == 1


async def test_one_that_was_idle_for_longer_goes_through_the_pool(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trips, "TRUSTED_SECONDS", 0)
    assert len({await trips.who() for _ in range(5)}) == 1
    assert trips.asked == 5


async def test_round_trips_side_by_side_have_a_connection_each(trips: Trips) -> None:
    for _ in range(3):
        first, second = await asyncio.gather(trips.who(), trips.who())
        assert first != second
    assert trips.asked == 2


async def test_the_last_one_that_a_pool_has_is_given_back(trips: Trips) -> None:
    """Otherwise who waits for one would wait for nothing, and everybody else at a server gone quiet."""
    for _ in range(3):
        assert len(set(await asyncio.gather(*(trips.who() for _ in range(9))))) == 3
        async with asyncio.timeout(4):
            connection = await trips._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py has no types here
        await trips._pool.release(connection)


async def test_one_that_leads_to_who_was_the_primary_before_is_not_used_again(trips: Trips, other: Redis) -> None:
    before = await trips.who()
    pool: Any = trips._pool
    pool.master_address = ("127.0.0.1", 1)  # as a pool of sentinels has it
    assert await trips.who() != before
    while before in await living(other):  # noqa: ASYNC110 - the server is asked
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_one_that_was_reset_is_replaced_and_in_the_pool_it_is_an_outage_at_worst(
    new_loop: Callable[[], asyncio.AbstractEventLoop], redis_url: str
) -> None:
    async def scenario() -> None:
        async with opened(redis_url) as trips:
            before = await trips.who()
            await reset(trips._idle[-1][1])
            assert await trips.who() != before
            connection = trips._idle.pop()[1]
            await trips._pool.release(connection)
            await reset(connection)
            with suppress(exceptions.ConnectionError):
                await trips.who()
            assert await trips.who() != before

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_one_that_is_reset_while_it_is_made_is_an_outage_and_no_other_error(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop raises `RuntimeError` then, which once made a dead letter of a turn."""
    resets: list[None] = []

    async def scenario() -> None:
        def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            resets.append(None)

        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with opened(url) as trips:
                for _ in range(50):
                    with pytest.raises((RedisError, OSError)):
                        await trips.who()
            store = RedisStore(url, "test", Retention())
            for _ in range(50):
                with pytest.raises(StoreUnavailable):
                    await store.open()
            await store.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    assert len(resets) >= 100


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///h", "redis+sentinel://h/primary"])
async def test_what_uvloop_raises_over_a_lost_connection_is_told_as_redis_py_tells_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the connection is made for: calls, checks at the start, scans, a cluster's table, a sentinel's word."""

    async def closed(**_: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    address = parse_address(url)
    client = primary_client(address, 5) if address.primary is not None else server_client(address, 5, 1)
    pools: list[Any] = [client.connection_pool]
    if address.primary is not None:
        pools += [sentinel.connection_pool for sentinel in pools[0].sentinel_manager.sentinels]
    for pool in pools:
        connection = pool.make_connection()
        monkeypatch.setattr(connection, "connect_check_health", closed)
        with pytest.raises(exceptions.ConnectionError, match="handler is closed"):
            await connection.send_packed_command([b"PING"])
    await client.aclose()


async def reset(connection: Any) -> None:
    connection._writer.transport.abort()
    await eventually(lambda: connection._reader.exception() is not None or connection._reader.at_eof())


async def test_one_that_the_server_has_closed_is_replaced_without_an_error(trips: Trips, other: Redis) -> None:
    before = await trips.who()
    connection: Any = trips._idle[-1][1]
    assert await other.client_kill_filter(_id=str(before)) == 1
    await eventually(connection._reader.at_eof)
    assert await trips.who() != before


async def test_an_error_that_is_answered_leaves_the_connection_in_order(trips: Trips) -> None:
    before = await trips.who()
    error, number = await trips.make([(b"NO-SUCH-COMMAND",), WHO])
    assert isinstance(error, ResponseError)
    assert number == before == await trips.who()


async def test_one_with_an_answer_left_to_read_is_not_used_again(trips: Trips, other: Redis) -> None:
    before = await trips.who()
    waiting = asyncio.create_task(trips.make([(b"BLPOP", b"test:never", b"0")]))
    while not (await other.info("clients"))["blocked_clients"]:  # noqa: ASYNC110 - the server is asked
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    after = await trips.who()
    assert after != before
    assert before not in await living(other)


async def test_what_nobody_uses_can_be_dropped(trips: Trips, other: Redis) -> None:
    dropped = set(await asyncio.gather(trips.who(), trips.who()))
    assert dropped <= await living(other)
    await trips.drop_idle()
    while dropped & await living(other):  # noqa: ASYNC110 - the server is asked
        await asyncio.sleep(0.01)
    assert await trips.who() not in dropped
