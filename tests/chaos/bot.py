"""The bot of the chaos suite: `python -m worker.cli run tests.chaos.bot:answer`.

It counts its turns in what it remembers, so a turn that was applied twice or on an old state shows in the count. Its
answer holds a random word, so a turn that was run twice and answered twice shows as two different replies.
"""

import asyncio
import random
from uuid import uuid4

from interfaces import Context


async def answer(ctx: Context) -> str:
    """Take up to 20 ms, so that faults meet turns at every point."""
    return await _count(ctx, 0.02)


async def answer_slowly(ctx: Context) -> str:
    """Take up to 200 ms, so that most faults meet a turn between its load and its commit."""
    return await _count(ctx, 0.2)


async def _count(ctx: Context, slowest: float) -> str:
    applied = int(ctx.misc.get("applied", 0)) + 1
    await asyncio.sleep(random.random() * slowest)
    ctx.misc["applied"] = applied
    return f"{applied} {uuid4().hex}"
