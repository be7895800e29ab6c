"""The seam to the AMQP client library keeps a cancellation that the library lost."""

import asyncio

import pytest
from aiormq.exceptions import ChannelClosed

from interfaces.brokers.mapping import amqp_errors


@pytest.mark.parametrize("instead", [ChannelClosed(200, "closed"), None], ids=["another error", "nothing"])
async def test_a_task_whose_cancellation_the_library_lost_ends_all_the_same(instead: Exception | None) -> None:
    """`aiormq.abc.TaskWrapper` raises what its channel was closed with, where both come at once."""
    waiting = asyncio.Event()

    async def lose_cancellation() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if instead is not None:
                raise instead from None

    async def ask() -> None:
        with amqp_errors("asking"):
            await lose_cancellation()

    task = asyncio.create_task(ask())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_inside_the_block_is_no_cancellation_of_the_task() -> None:
    with amqp_errors("asking"), pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
