"""A Chatsky bot that shows in each answer all it knows of its dialog; run as a program, under Chatsky alone.

    python -m tests.bots.chatsky_shop redis://... PREFIX '{"ada": ["hi", ...]}'

says the lines of each dialog to the pipeline with Chatsky's own Redis storage, and prints the answers as JSON. Nothing
of this project is imported.
"""

import asyncio
import json
import sys
from typing import Any

from chatsky import (
    PRE_TRANSITION,
    RESPONSE,
    TRANSITIONS,
    BaseResponse,
    Context,
    Message,
    MessageInitTypes,
    Pipeline,
)
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import processing as proc
from chatsky.context_storages import DBContextStorage, context_storage_factory
from chatsky.core.message import Image, Location, Origin
from chatsky.slots import FunctionSlot, GroupSlot, RegexpSlot


def values(slot: Any) -> Any:
    """What has been extracted, by name."""
    children = getattr(slot, "__pydantic_extra__", None)
    if isinstance(children, dict) and not hasattr(slot, "is_slot_extracted"):
        return {name: values(child) for name, child in sorted(children.items())}
    return [slot.is_slot_extracted, repr(slot.value)]


class TellAll(BaseResponse):
    """Turn, label, misc, slots and the whole history, as JSON."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        """Answer."""
        turn = ctx.current_turn_id
        ctx.misc["turns"] = [*ctx.misc.get("turns", []), turn]
        ctx.framework_data.stats["seen"] = ctx.framework_data.stats.get("seen", 0) + 1
        history = [
            [request and request.text, label and label.node_name, response and response.text and len(response.text)]
            for request, label, response in await ctx.turns[:turn]
        ]
        told = {
            "turn": turn,
            "label": ctx.last_label.node_name,
            "misc": ctx.misc,
            "stats": ctx.framework_data.stats,
            "slots": values(ctx.framework_data.slot_manager.slot_storage),
            "history": history,
        }
        attachments = [Location(longitude=turn, latitude=1)] if turn % 2 else [Image(id="1", title="é")]
        return Message(json.dumps(told), attachments=attachments, misc={"n": [turn, None]}, annotations={"a": {"b": 1}})


def odd(message: Message) -> tuple[int, str]:
    """A value that JSON would change, or an error of a class that is not Chatsky's."""
    if "odd" not in message.text:
        raise KeyError("missing")
    return 1, "é"


EXTRACT = {
    PRE_TRANSITION: {"slots": proc.Extract("person.name", "person.town", "words", "letters", "odd", success_only=False)}
}
SLOTS = {
    "person": GroupSlot(
        name=RegexpSlot(regexp=r"I am (\w+)", match_group_idx=1),
        town=RegexpSlot(regexp=r"from (\w+)", match_group_idx=1, default_value="nowhere"),
    ),
    "words": FunctionSlot(func=lambda message: {"count": len(message.text.split()), "all": message.text.split()}),
    "letters": FunctionSlot(func=lambda message: set(message.text[:1])),
    "odd": FunctionSlot(func=odd),
    "never": RegexpSlot(regexp="never", default_value=[1, "two"]),
}
SCRIPT = {
    "shop": {
        "start": {**EXTRACT, TRANSITIONS: [Tr(dst="talk")]},
        "talk": {
            **EXTRACT,
            RESPONSE: TellAll(),
            TRANSITIONS: [Tr(dst="leave", cnd=cnd.Regexp("bye")), Tr(dst="talk")],
        },
        "leave": {**EXTRACT, RESPONSE: TellAll(), TRANSITIONS: [Tr(dst="talk")]},
    }
}


def shop(storage: DBContextStorage | None = None) -> Pipeline:
    """The pipeline, with contexts in `storage`."""
    more = {} if storage is None else {"context_storage": storage}
    return Pipeline(SCRIPT, start_label=("shop", "start"), slots=SLOTS, **more)


async def converse(url: str, prefix: str, dialogs: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Say all lines; the answers as JSON by dialog."""
    pipeline = shop(context_storage_factory(url, key_prefix=prefix))
    answers: dict[str, list[Any]] = {}
    for ctx_id, lines in dialogs.items():
        for line in lines:
            origin = Origin(message=None, interface="shop")
            origin.message = {"an": object}  # as a messenger's update: only a pickle holds it
            request = Message(line, origin=origin, misc={"line": line})
            context = await pipeline._run_pipeline(request, ctx_id)
            answers.setdefault(ctx_id, []).append(context.last_response.model_dump(mode="json"))
    await pipeline.context_storage.database.aclose()
    return answers


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(converse(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
