"""The budget of bytes in flight: its limit, its order, and cancellation at every moment."""

import asyncio
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from interfaces.byte_budget import ByteBudget


async def test_no_more_than_the_limit_is_taken_and_a_larger_one_goes_alone() -> None:
    budget = ByteBudget(10)
    held: list[int] = []
    most = 0

    async def take(size: int) -> None:
        nonlocal most
        async with budget.taken(size):
            held.append(size)
            most = max(most, sum(min(size, 10) for size in held))
            assert sum(min(size, 10) for size in held) <= 10
            await asyncio.sleep(0)
            held.remove(size)

    await asyncio.gather(*(take(size) for size in [3, 99, 4, 4, 4, 10, 1, 0]))
    assert most == 10


async def test_a_large_one_is_not_overtaken_by_small_ones_that_would_fit() -> None:
    budget = ByteBudget(10)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        async with budget.taken(size):
            order.append(name)

    async with budget.taken(6):
        waiting = [asyncio.create_task(take("large", 8)), asyncio.create_task(take("small", 1))]
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*waiting)
    assert order == ["large", "small"]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=12))
def test_whenever_takers_are_cancelled_nothing_is_lost(takers: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        budget = ByteBudget(10)

        async def take(size: int) -> None:
            async with budget.taken(size):
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(take(size)) for size, _ in takers]
        for tick in range(7):
            for task, (_, cancelled_at) in zip(tasks, takers, strict=True):
                if cancelled_at == tick:
                    task.cancel()
            await asyncio.sleep(0)
        for task in tasks:
            with suppress(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await task
        async with asyncio.timeout(5), budget.taken(10):
            pass

    asyncio.run(scenario())
