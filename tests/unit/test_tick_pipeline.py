"""Which calls to Redis wait for which: none at low load, and under load those that find others under way."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from worker.stores import pipelining
from worker.stores.pipelining import FEW_CALLS, MANY_CALLS, Command, TickPipeline
from worker.stores.round_trips import RoundTrips


class Trips:
    """Round trips that are answered when the test says so."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        """Commands of each."""
        self._answers: list[asyncio.Future[None]] = []

    async def make(self, words: Sequence[tuple[bytes, ...]]) -> list[Any]:
        self.sent.append(len(words))
        self._answers.append(answer := asyncio.get_running_loop().create_future())
        await answer
        return [b"OK"] * len(words)

    def answer(self, number: int) -> None:
        self._answers[number].set_result(None)


class Redis:
    """A pipeline over two connections, and all its calls."""

    def __init__(self) -> None:
        self.trips = Trips()
        self.pipeline = TickPipeline(cast("RoundTrips", self.trips), 2)
        self.calls: list[asyncio.Future[Any]] = []

    async def call(self, count: int) -> None:
        """So many calls in one tick, which then are sent, or wait."""
        self.calls += [self.pipeline.call(Command((b"PING",), b"key")) for _ in range(count)]
        await self.settled()

    async def answer(self, number: int) -> None:
        self.trips.answer(number)
        await self.settled()

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_at_low_load_a_call_does_not_wait_for_those_under_way() -> None:
    redis = Redis()
    await redis.call(FEW_CALLS)
    await redis.call(1)
    assert redis.trips.sent == [FEW_CALLS, 1]
    await redis.call(1)  # Both connections are taken.
    assert redis.trips.sent == [FEW_CALLS, 1]
    await redis.answer(1)
    assert redis.trips.sent == [FEW_CALLS, 1, 1]


async def test_under_load_calls_wait_for_those_under_way_and_go_together() -> None:
    redis = Redis()
    await redis.call(FEW_CALLS + 1)
    for _ in range(3):
        await redis.call(5)
    assert redis.trips.sent == [FEW_CALLS + 1]
    await redis.answer(0)
    assert redis.trips.sent == [FEW_CALLS + 1, 15]
    await redis.answer(1)
    assert all(call.result() == b"OK" for call in redis.calls)
    await redis.call(2)
    assert redis.trips.sent == [FEW_CALLS + 1, 15, 2]


async def test_many_calls_go_by_the_other_connection() -> None:
    redis = Redis()
    await redis.call(FEW_CALLS + 1)
    await redis.call(MANY_CALLS - 1)
    assert redis.trips.sent == [FEW_CALLS + 1]
    await redis.call(1)
    assert redis.trips.sent == [FEW_CALLS + 1, MANY_CALLS]


async def test_a_call_does_not_wait_long_for_a_connection_that_has_fallen_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipelining, "PATIENCE_SECONDS", 0.01)
    redis = Redis()
    await redis.call(FEW_CALLS + 1)
    await redis.call(1)
    assert redis.trips.sent == [FEW_CALLS + 1]
    async with asyncio.timeout(5):
        while redis.trips.sent != [FEW_CALLS + 1, 1]:  # noqa: ASYNC110 - a round trip that begins sets no event
            await asyncio.sleep(0.001)
    await redis.answer(1)
    assert redis.calls[-1].result() == b"OK"


async def test_calls_behind_a_round_trip_that_fails_are_sent() -> None:
    redis = Redis()
    await redis.call(FEW_CALLS + 1)
    await redis.call(3)
    redis.trips._answers[0].set_exception(RuntimeError("a bug"))
    await redis.settled()
    assert redis.trips.sent == [FEW_CALLS + 1, 3]
    assert all(isinstance(call.exception(), RuntimeError) for call in redis.calls[: FEW_CALLS + 1])
    await redis.answer(1)
    assert all(call.result() == b"OK" for call in redis.calls[FEW_CALLS + 1 :])
