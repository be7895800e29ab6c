"""`tests.bots.deadly` as a Chatsky pipeline."""

import asyncio

from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Context, Message, Pipeline
from chatsky import Transition as Tr

from tests.bots.deadly import DEATHS, TURN_SECONDS


class Answer(BaseResponse):
    async def call(self, ctx: Context) -> Message:
        await asyncio.sleep(TURN_SECONDS)
        text = ctx.last_request.text
        if text in DEATHS:
            DEATHS[text]()
        ctx.misc["applied"] = [*ctx.misc.get("applied", []), text]
        return Message(f"{len(ctx.misc['applied'])}: {text}")


SCRIPT = {
    "talk": {
        "start": {TRANSITIONS: [Tr(dst="answer")]},
        "answer": {RESPONSE: Answer(), TRANSITIONS: [Tr(dst="answer")]},
    }
}

pipeline = Pipeline(script=SCRIPT, start_label=("talk", "start"))
