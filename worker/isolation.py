"""Who runs beside whom: turns share the process, and a suspect has it to itself.

A suspect is a turn that was there at each of the last ends of a process, and may be what ended them. Alone, a further
end can only be its own (docs/decisions/0014). While a suspect waits, no other turn begins; as long as there is none,
all this is a counter. Used by `worker.turns`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

ENDS_IN_COMPANY: Final = 2
"""Ends of a process that make a suspect. One is everyday (a node that goes, a kill), and meets all turns there."""


def shared_starts(crash_limit: int) -> int:
    """Starts of a turn that run beside others, and are counted all the same: the limit leaves one to be made alone."""
    return min(ENDS_IN_COMPANY, max(1, crash_limit - 1))


class Isolation:
    """The turns that run in this process."""

    def __init__(self) -> None:
        self._sharing = 0
        self._suspects = 0
        self._one_at_a_time = asyncio.Lock()
        self._none_shares = asyncio.Event()
        self._no_suspects = asyncio.Event()

    async def enter_shared(self) -> None:
        """Begin to run beside others, once no suspect runs or waits. Every turn does: hence no context manager."""
        while not self.try_enter_shared():
            await self._no_suspects.wait()

    def try_enter_shared(self) -> bool:
        """Begin to run beside others where no suspect runs or waits, as nearly always; whether that is so."""
        if self._suspects:
            return False
        self._sharing += 1
        return True

    def leave_shared(self) -> None:
        """Run no more beside others."""
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
