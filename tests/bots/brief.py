"""A bot whose turn takes about a millisecond of waiting, and that answers with what it was told and how often it ran.

Run by the workers of the tests of floods.
"""

import asyncio

from interfaces.context import Context

TURN_SECONDS = 0.001


async def answer(ctx: Context) -> str:
    """Reply with the number of the turn and the text."""
    await asyncio.sleep(TURN_SECONDS)
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return f"{ctx.misc['turns']}: {ctx.last_request.text}"
