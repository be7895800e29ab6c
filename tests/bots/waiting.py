"""A bot that does nothing but wait, as one does that asks a language model. Run by `tests/scaling.py`."""

import asyncio

from interfaces.context import Context

SECONDS = 0.02


async def answer(ctx: Context) -> str:
    """Reply with the text, after a while."""
    await asyncio.sleep(SECONDS)
    return ctx.last_request.text or ""
