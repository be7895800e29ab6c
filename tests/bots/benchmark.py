"""The benchmark's bot: answers with the request's number and the turns the dialog has had."""

import asyncio
import os

from interfaces import Context, Message
from tests.bench.work import answer_to

WAIT = float(os.environ.get("BENCH_WAIT", "0"))


async def answer(context: Context) -> Message:
    request = context.last_request
    assert request is not None
    if WAIT:
        await asyncio.sleep(WAIT)
    count = context.misc.get("count", 0) + 1
    context.misc["count"] = count
    return Message(text=answer_to(request.text or "", count))
