"""The benchmark's bot as a Chatsky pipeline: one node, whose response counts up in `misc`."""

import asyncio
import os

from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Context, Message, Pipeline
from chatsky import Transition as Tr

from tests.bench.work import answer_to

WAIT = float(os.environ.get("BENCH_WAIT", "0"))


class Count(BaseResponse):
    async def call(self, ctx: Context) -> Message:
        if WAIT:
            await asyncio.sleep(WAIT)
        ctx.misc["count"] = ctx.misc.get("count", 0) + 1
        return Message(answer_to(ctx.last_request.text, ctx.misc["count"]))


SCRIPT = {"talk": {"count": {RESPONSE: Count(), TRANSITIONS: [Tr(dst="count")]}}}
START = ("talk", "count")

pipeline = Pipeline(script=SCRIPT, start_label=START)
