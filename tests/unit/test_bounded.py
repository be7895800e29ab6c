"""The time limit on calls that may lose their cancellation."""

import asyncio

import pytest

from interfaces.brokers.bounded import bounded


async def test_a_call_that_ignores_its_cancellation_does_not_outlast_its_time() -> None:
    released = asyncio.Event()
    cancelled = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                cancelled.set()

    with pytest.raises(TimeoutError):
        await bounded(stubborn(), 0.01)
    await cancelled.wait()
    released.set()


async def test_a_call_in_time_gives_its_result_or_its_error() -> None:
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise ValueError("as it was")

    assert await bounded(answer(), 1) == 42
    with pytest.raises(ValueError, match="as it was"):
        await bounded(fail(), 1)


async def test_a_caller_that_is_cancelled_cancels_the_call() -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def call() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    caller = asyncio.create_task(bounded(call(), 60))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await cancelled.wait()
