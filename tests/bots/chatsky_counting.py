"""The smallest pipeline with a state: it counts messages in `misc` and tells what it has seen."""

from chatsky import PRE_RESPONSE, RESPONSE, TRANSITIONS, BaseProcessing, BaseResponse, Context, Message, Pipeline
from chatsky import Transition as Tr


class Count(BaseProcessing):
    async def call(self, ctx: Context) -> None:
        ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1


class Tell(BaseResponse):
    async def call(self, ctx: Context) -> Message:
        return Message(f"message {ctx.misc['turns']}: {ctx.last_request.text}")


SCRIPT = {
    "talk": {
        "start": {TRANSITIONS: [Tr(dst="answer")]},
        "answer": {PRE_RESPONSE: {"count": Count()}, RESPONSE: Tell(), TRANSITIONS: [Tr(dst="answer")]},
    }
}

pipeline = Pipeline(script=SCRIPT, start_label=("talk", "start"))
