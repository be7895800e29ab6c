"""Lanes: the turns of one context strictly one after the other, those of different contexts side by side.

A lane exists while its context has something to do. At most `concurrency` turns run at a time over all lanes; the next
free place goes to the lane that has waited longest, so no context can starve another. A batch is never a barrier. Who
fills the lanes asks first whether there are enough of them (docs/decisions/0027).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from interfaces.eager_tasks import begin_task

T = TypeVar("T")


class Lanes(Generic[T]):
    """Runs `turn(key, item)` for everything submitted, in order within a key.

    `turn` handles its own failures. One that raises all the same is a bug: `failed` carries it to whoever supervises,
    and its lane stops, because running the next turn after an unknown outcome could break the order.
    """

    def __init__(self, turn: Callable[[str, T], Coroutine[Any, Any, None]], concurrency: int) -> None:
        self._turn = turn
        self._places = concurrency
        self._lanes: dict[str, deque[T]] = {}
        self._ready: deque[str] = deque()
        """Lanes whose next turn may start, the one that has waited longest first. They have no task."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._enough, self._few = 2 * concurrency, 2 * concurrency - max(1, concurrency // 2)
        """With so many lanes no more are asked for, until no more than the second number are left."""
        self._is_short = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def submit(self, key: str, item: T) -> None:
        """Put `item` at the end of the lane of `key`."""
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(item)
            return
        self._lanes[key] = deque([item])
        self._ready.append(key)
        self._start()

    def __len__(self) -> int:
        """How many contexts have something to do."""
        return len(self._lanes)

    async def until_short(self, seconds: float) -> bool:
        """Return when there are too few lanes, when woken, or when the time is over; whether they are too few.

        Twice as many as may run are enough: a worker that starts with tens of thousands of requests would otherwise
        decode them all before it answers the first. Of one context any number may wait, which is one lane.
        """
        if len(self._lanes) < self._enough:
            return True
        self._is_short.clear()
        over = self._loop.call_later(seconds, self._is_short.set)
        try:
            await self._is_short.wait()
        finally:
            over.cancel()
        return len(self._lanes) < self._enough

    def wake(self) -> None:
        """End the wait for fewer lanes."""
        self._is_short.set()

    async def drain(self) -> None:
        """Wait until every lane is empty."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> int:
        """Cancel what runs and forget what waits; returns how many lanes were not empty."""
        unfinished = len(self._lanes)
        for key in self._ready:
            del self._lanes[key]
        self._ready.clear()
        for lane in self._lanes.values():
            lane.clear()
        for task in self._tasks:
            task.cancel()
        await self.drain()
        return unfinished

    def _start(self) -> None:
        while self._places and self._ready:
            self._places -= 1
            key = self._ready.popleft()
            # At once, so that its call to Redis goes with those of this tick, not of the next.
            task = begin_task(self._turn(key, self._lanes[key].popleft()), f"lane {key!r}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._on_ended, key))

    def _on_ended(self, key: str, task: "asyncio.Task[None]") -> None:
        # Called for a turn that was cancelled before its first step, too: a `finally` in it would not be.
        self._tasks.discard(task)
        self._places += 1
        has_failed = task.cancelled() or task.exception() is not None
        if has_failed or not self._lanes[key]:
            del self._lanes[key]
            if len(self._lanes) == self._few:  # Not each time: a poll for one request costs as much as one for many.
                self._is_short.set()
        else:
            self._ready.append(key)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
        self._start()
