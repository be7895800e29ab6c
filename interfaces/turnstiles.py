"""One at a time per key, first come first served; different keys do not wait for each other.

Used where whoever comes is not to be queued as a task: for publishing in order, and for asking in order at the edge.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Turnstile:
    """A lock, first come first served, and how many want it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Turnstiles:
    """A lock for each key that somebody wants, and none for the others."""

    def __init__(self) -> None:
        self._turnstiles: dict[str, _Turnstile] = {}

    def __len__(self) -> int:
        return len(self._turnstiles)

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait until everybody who came before with this `key` is through."""
        turnstile = self._turnstiles.setdefault(key, _Turnstile())
        turnstile.users += 1
        try:
            async with turnstile.lock:
                yield
        finally:
            turnstile.users -= 1
            if turnstile.users == 0:
                del self._turnstiles[key]
