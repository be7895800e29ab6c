"""Who runs beside whom: turns share the process, and a suspect has it to itself.

A suspect is a turn that was started before and never finished, so it may be what ended its process. Alone, a further
end can only be its own (docs/decisions/0014). While a suspect waits, no other turn begins; as long as there is none,
all this is a counter. Used by `worker.turns`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Isolation:
    """The turns that run in this process."""

    def __init__(self) -> None:
        self._sharing = 0
        self._suspects = 0
        self._one_at_a_time = asyncio.Lock()
        self._none_shares = asyncio.Event()
        self._no_suspects = asyncio.Event()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Run beside others, once no suspect runs or waits."""
        while self._suspects:
            await self._no_suspects.wait()
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            if self._sharing == 0:
                self._none_shares.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run alone, once those that run have ended and it is this suspect's turn."""
        self._suspects += 1
        self._no_suspects.clear()
        try:
            async with self._one_at_a_time:
                while self._sharing:
                    self._none_shares.clear()
                    await self._none_shares.wait()
                yield
        finally:
            self._suspects -= 1
            if self._suspects == 0:
                self._no_suspects.set()
