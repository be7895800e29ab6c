"""A bot that answers at once, with the time its turn began and the process it ran in.

The time is the machine's monotonic clock, so it can be compared with other processes'. Its count of turns is for the
checker of histories. Run by the workers of `tests/availability` and of the tests of hand-over and leader loss.
"""

import os
import time

from interfaces.context import Context


async def answer(ctx: Context) -> str:
    """Reply with nanoseconds and process id."""
    began = time.monotonic_ns()
    ctx.misc["applied"] = ctx.misc.get("applied", 0) + 1
    return f"{began} {os.getpid()}"
