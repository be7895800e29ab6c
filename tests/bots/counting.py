"""A bot that shows in its replies how often its turns were applied, and one word of which ends the process.

Its count lives in the context, so a turn that is lost or applied twice shows in every later reply. Run by the worker
processes of the integration tests.
"""

import os

from interfaces.context import Context

DEADLY = "end this process"
EXIT_CODE = 70


async def answer(ctx: Context) -> str:
    """Reply with the number of turns applied so far and the text."""
    text = ctx.last_request.text or ""
    if text == DEADLY:
        os._exit(EXIT_CODE)
    ctx.misc["applied"] = [*ctx.misc.get("applied", []), text]
    return f"{len(ctx.misc['applied'])}: {text}"
