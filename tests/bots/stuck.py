"""Bots that never come to an end on one word. Run by the worker processes of the integration tests."""

import asyncio
import threading
import time

from interfaces.context import Context

STUCK = "get stuck"
STUCK_ONCE = "get stuck once"

_got_stuck = threading.Event()


def answer_plainly(ctx: Context) -> str:
    """Hang in a thread, or reply with the text."""
    text = ctx.last_request.text or ""
    if text == STUCK or (text == STUCK_ONCE and not _got_stuck.is_set()):
        _got_stuck.set()
        threading.Event().wait()
    return text


async def answer(ctx: Context) -> str:
    """Ignore every cancellation, or reply with the text."""
    text = ctx.last_request.text or ""
    while text == STUCK:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return text


async def block(ctx: Context) -> str:
    """Hold up the event loop, or reply with the text."""
    text = ctx.last_request.text or ""
    if text == STUCK:
        time.sleep(3600)  # noqa: ASYNC251 - that is what it is for
    return text
