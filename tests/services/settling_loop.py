"""The event loop of the tests: it ends no earlier than what its own end has begun.

A connection to RabbitMQ that is given up while it closes (a stalled link, an alarm) makes its last task when it is
cancelled, and that is when the loop ends. Collected later, as a task that was destroyed while pending, it would fail a
test that has nothing to do with it.
"""

import asyncio
from typing import Final

ROUNDS: Final = 5
SECONDS: Final = 1.0


class SettlingLoop(asyncio.SelectorEventLoop):
    """Cancels what is left, and what that leaves, before it closes."""

    def close(self) -> None:
        for _ in range(ROUNDS):
            if self.is_closed():
                break
            self.run_until_complete(asyncio.sleep(0))  # Callbacks that are due may make tasks.
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=SECONDS))
        super().close()
