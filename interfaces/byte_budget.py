"""A limit on bytes in memory, not on tasks: many small transfers at a time, or one large one.

Served in the order of arrival, so that a large one is never overtaken for ever. Used by the attachment transfer.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ByteBudget:
    """At most `limit` bytes are taken at a time; a larger one counts as `limit` and goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes are free, and hold them."""
        size = min(size, self._limit)
        if self._waiting or size > self._free:
            await self._wait(size)
        else:
            self._free -= size
        try:
            yield
        finally:
            self._give_back(size)

    async def _wait(self, size: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, granted)
        self._waiting.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give_back(size)  # granted in the tick of the cancellation
            else:
                with suppress(ValueError):  # whoever gave bytes back has already passed it over
                    self._waiting.remove(entry)
                self._grant()  # it may have been what all behind it waited for
            raise

    def _give_back(self, size: int) -> None:
        self._free += size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, granted = self._waiting.popleft()
            if granted.cancelled():
                continue
            self._free -= size
            granted.set_result(None)
