"""Isolation: turns share the process, a suspect has it alone, and nobody waits for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.isolation import Isolation, shared_starts


@asynccontextmanager
async def shared(isolation: Isolation) -> AsyncIterator[None]:
    await isolation.enter_shared()
    try:
        yield
    finally:
        isolation.leave_shared()


class Turns:
    """Turns that note who runs, and end when they are told to."""

    def __init__(self) -> None:
        self.isolation = Isolation()
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, *, alone: bool = False) -> None:
        self._ends[name] = asyncio.Event()
        place = self.isolation.alone() if alone else shared(self.isolation)
        self._tasks[name] = asyncio.create_task(self._run(name, place))

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await settled()

    async def _run(self, name: str, place: AbstractAsyncContextManager[None]) -> None:
        async with place:
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)


async def settled() -> None:
    """Let everything go as far as it goes."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("crash_limit", "shared"), [(1, 1), (2, 1), (3, 2), (4, 2), (100, 2)])
def test_the_crash_limit_leaves_a_start_to_be_made_alone(crash_limit: int, shared: int) -> None:
    assert shared_starts(crash_limit) == shared


async def test_a_suspect_waits_for_those_that_run_and_holds_those_that_come() -> None:
    turns = Turns()
    turns.begin("a")
    turns.begin("b")
    await settled()
    turns.begin("suspect", alone=True)
    await settled()
    turns.begin("late")
    await settled()
    assert turns.running == ["a", "b"]
    await turns.end("a")
    assert turns.running == ["b"]
    await turns.end("b")
    assert turns.running == ["suspect"]
    await turns.end("suspect")
    assert turns.running == ["late"]
    await turns.end("late")


async def test_suspects_run_one_after_the_other_in_the_order_they_came_before_the_rest_goes_on() -> None:
    turns = Turns()
    for name in ("first", "second", "third"):
        turns.begin(name, alone=True)
        await settled()
    turns.begin("other")
    await settled()
    for name in ("first", "second", "third", "other"):
        assert turns.running == [name]
        await turns.end(name)


async def test_a_suspect_that_is_cancelled_while_it_waits_holds_nobody() -> None:
    turns = Turns()
    turns.begin("a")
    await settled()
    turns.begin("suspect", alone=True)
    await settled()
    turns.begin("b")
    await settled()
    await turns.cancel("suspect")
    assert turns.running == ["a", "b"]
    await turns.end("a")
    await turns.end("b")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4)), max_size=30))
async def test_whatever_comes_when_a_suspect_never_has_company_and_all_come_to_an_end(
    plan: list[tuple[bool, int, int]],
) -> None:
    isolation = Isolation()
    running: set[int] = set()
    suspects: set[int] = set()

    async def run(number: int, alone: bool, delay: int, steps: int) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)
        async with isolation.alone() if alone else shared(isolation):
            running.add(number)
            if alone:
                suspects.add(number)
            for _ in range(steps + 1):
                assert len(running) == 1 or not suspects & running
                await asyncio.sleep(0)
            running.discard(number)

    async with asyncio.timeout(10):
        await asyncio.gather(*(run(number, *turn) for number, turn in enumerate(plan)))
    assert not running
