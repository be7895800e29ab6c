"""Lanes: order within a context, no barrier between contexts, fair places, and failures that reach the supervisor."""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfaces.lanes import Lanes


class Gate:
    """A turn that notes when it starts and finishes, and that waits in between until the test opens it."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.finished: list[tuple[str, int]] = []
        self._open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._changed = asyncio.Condition()

    async def turn(self, key: str, item: int) -> None:
        await self._note(self.started, key, item)
        await self._open[key].wait()
        await self._note(self.finished, key, item)

    def open(self, key: str) -> None:
        self._open[key].set()

    async def wait_started(self, count: int) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: len(self.started) >= count)

    async def _note(self, where: list[tuple[str, int]], key: str, item: int) -> None:
        async with self._changed:
            where.append((key, item))
            self._changed.notify_all()


@settings(deadline=None, max_examples=60)
@given(
    submitted=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=60),
    concurrency=st.integers(1, 4),
)
async def test_turns_of_a_context_run_one_at_a_time_in_order_within_the_bound(
    submitted: list[tuple[str, int]], concurrency: int
) -> None:
    ran: defaultdict[str, list[int]] = defaultdict(list)
    running: list[str] = []
    most = 0

    async def turn(key: str, item: tuple[int, int]) -> None:
        nonlocal most
        number, pauses = item
        assert key not in running
        running.append(key)
        most = max(most, len(running))
        for _ in range(pauses):
            await asyncio.sleep(0)
        ran[key].append(number)
        running.remove(key)

    lanes = Lanes(turn, concurrency)
    for number, (key, pauses) in enumerate(submitted):
        lanes.submit(key, (number, pauses))
        if pauses == 0:
            await asyncio.sleep(0)  # some are submitted while others run
    async with asyncio.timeout(5):
        await lanes.drain()
    expected: defaultdict[str, list[int]] = defaultdict(list)
    for number, (key, _) in enumerate(submitted):
        expected[key].append(number)
    assert ran == expected
    assert most <= concurrency
    assert not lanes.failed.done()


async def test_a_slow_context_holds_back_nobody_but_itself() -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency=2)
    for item in range(2):
        lanes.submit("slow", item)
    for item in range(50):
        lanes.submit("quick", item)
    gate.open("quick")
    await gate.wait_started(51)
    assert [item for key, item in gate.finished if key == "quick"][:49] == list(range(49))
    assert ("slow", 0) in gate.started
    assert ("slow", 1) not in gate.started
    gate.open("slow")
    await lanes.drain()
    assert [item for key, item in gate.finished if key == "slow"] == [0, 1]


async def test_a_free_place_goes_to_the_lane_that_has_waited_longest() -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency=1)
    for key in ("first", "second", "third"):
        for item in range(3):
            lanes.submit(key, item)
    await gate.wait_started(1)
    for key in ("first", "second", "third"):
        gate.open(key)
    await lanes.drain()
    assert gate.started == [(key, item) for item in range(3) for key in ("first", "second", "third")]


async def test_no_more_turns_run_at_a_time_than_there_are_places() -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency=3)
    for number in range(10):
        lanes.submit(f"context {number}", 0)
    await gate.wait_started(3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(gate.started) == 3
    for number in range(10):
        gate.open(f"context {number}")
    await lanes.drain()
    assert len(gate.finished) == 10


async def test_an_item_submitted_by_the_last_turn_of_its_lane_is_run() -> None:
    ran = []

    async def turn(key: str, item: int) -> None:
        ran.append(item)
        if item < 5:
            lanes.submit(key, item + 1)

    lanes = Lanes(turn, concurrency=1)
    lanes.submit("a", 0)
    await lanes.drain()
    assert ran == [0, 1, 2, 3, 4, 5]


async def test_a_turn_that_raises_is_told_to_the_supervisor_and_stops_its_lane_alone() -> None:
    ran = []

    async def turn(key: str, item: int) -> None:
        if key == "broken":
            raise ZeroDivisionError(item)
        ran.append((key, item))

    lanes = Lanes(turn, concurrency=2)
    for item in range(2):
        lanes.submit("broken", item)
        lanes.submit("sound", item)
    await lanes.drain()
    assert ran == [("sound", 0), ("sound", 1)]
    with pytest.raises(ZeroDivisionError, match="0"):
        await lanes.failed


async def test_a_second_failure_leaves_the_first_to_be_told() -> None:
    async def turn(key: str, _: int) -> None:
        raise ValueError(key)

    lanes = Lanes(turn, concurrency=1)
    lanes.submit("first", 0)
    lanes.submit("second", 0)
    await lanes.drain()
    with pytest.raises(ValueError, match="first"):
        await lanes.failed


async def test_cancelling_ends_what_runs_forgets_what_waits_and_counts_the_lanes() -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency=2)
    for key in ("a", "b", "c"):
        for item in range(2):
            lanes.submit(key, item)
    await gate.wait_started(2)
    assert await lanes.cancel() == 3
    assert gate.finished == []
    assert gate.started == [("a", 0), ("b", 0)]
    assert not lanes.failed.done()
    await lanes.drain()


async def test_cancelling_empty_lanes_gives_up_nothing() -> None:
    lanes = Lanes(Gate().turn, concurrency=1)
    await lanes.drain()
    assert await lanes.cancel() == 0


async def test_more_contexts_are_asked_for_until_twice_as_many_wait_as_may_run_and_again_when_some_are_done() -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency=4)
    for number in range(8):
        assert await lanes.until_short(0)
        for item in range(1 if number < 7 else 100):  # Those of one context take no place from others.
            lanes.submit(f"context {number}", item)
    assert not await lanes.until_short(0)
    waiting = asyncio.create_task(lanes.until_short(30))
    gate.open("context 0")
    await gate.wait_started(5)
    assert (len(lanes), waiting.done()) == (7, False)
    gate.open("context 1")
    assert await waiting
    assert len(lanes) == 6
    for number in range(8):
        gate.open(f"context {number}")
    await lanes.drain()


@pytest.mark.parametrize("concurrency", range(1, 6))
async def test_whoever_waits_until_more_contexts_could_be_put_to_use_is_always_woken(concurrency: int) -> None:
    gate = Gate()
    lanes = Lanes(gate.turn, concurrency)
    for number in range(2 * concurrency):
        lanes.submit(f"context {number}", 0)
    waiting = asyncio.create_task(lanes.until_short(30))
    await gate.wait_started(concurrency)
    for number in range(2 * concurrency):
        gate.open(f"context {number}")
    async with asyncio.timeout(5):
        assert await waiting
    await lanes.drain()
