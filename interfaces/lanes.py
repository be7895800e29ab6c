"""Lanes: the turns of one context strictly one after the other, those of different contexts side by side.

A lane exists while its context has something to do. At most `concurrency` turns run at a time over all lanes; the next
free place goes to the lane that has waited longest, so no context can starve another. A batch is never a barrier.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Runs `turn(key, item)` for everything submitted, in order within a key.

    `turn` handles its own failures. One that raises all the same is a bug: `failed` carries it to whoever supervises,
    and its lane stops, because running the next turn after an unknown outcome could break the order.
    """

    def __init__(self, turn: Callable[[str, T], Awaitable[None]], concurrency: int) -> None:
        self._turn = turn
        self._places = asyncio.Semaphore(concurrency)
        self._waiting: dict[str, deque[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def submit(self, key: str, item: T) -> None:
        """Put `item` at the end of the lane of `key`."""
        lane = self._waiting.get(key)
        if lane is not None:
            lane.append(item)
            return
        self._waiting[key] = deque([item])
        task = asyncio.create_task(self._run(key), name=f"lane {key!r}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self) -> None:
        """Wait until every lane is empty."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> int:
        """Cancel what runs and forget what waits; returns how many lanes were not empty."""
        unfinished = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        await self.drain()
        return unfinished

    async def _run(self, key: str) -> None:
        lane = self._waiting[key]
        try:
            while lane:
                async with self._places:
                    await self._turn(key, lane.popleft())
        finally:
            # No await between the last look at the lane and this: an item submitted later starts a new lane.
            del self._waiting[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
