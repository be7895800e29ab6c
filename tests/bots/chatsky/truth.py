"""What the bots answer where Chatsky runs alone: one process, its own storage. `python -m tests.bots.chatsky.truth`.

Prints one JSON object: for each bot and dialog the turns (request, reply, misc) and the context at the end.
Every dialog is held twice, the second time in another order and mixed with the others, and must go the same way: a bot
that keeps anything outside its context would not be worth comparing with.
"""

import asyncio
import copy
import importlib
import json
import logging
import sys
from typing import Any

import chatsky

from tests.bots.chatsky import NAMES, Step
from tests.bots.chatsky.snapshot import snapshot

Told = dict[str, Any]


async def turn(pipeline: chatsky.Pipeline, ctx_id: str, step: Step) -> Told:
    """Say one thing; what it was, as JSON, and what came back."""
    said, misc = copy.deepcopy(step) if isinstance(step, tuple) else (step, None)
    context = await pipeline._run_pipeline(chatsky.Message.model_validate(said), ctx_id, misc)
    reply = context.last_response
    told = {
        "message": step[0] if isinstance(step, tuple) else step,
        "update_ctx_misc": step[1] if isinstance(step, tuple) else None,
        "turn": context.current_turn_id,
        "reply": None if reply is None else reply.model_dump(mode="json"),
        "misc": context.misc,
    }
    plain: Told = json.loads(json.dumps(told))  # as it is now: the bot goes on changing what it holds
    return plain


async def dialog(pipeline: chatsky.Pipeline, ctx_id: str, steps: list[Step]) -> Told:
    """Hold one dialog."""
    turns = [await turn(pipeline, ctx_id, step) for step in steps]
    context = await chatsky.Context.connected(pipeline.context_storage, id=ctx_id)
    plain: Told = json.loads(json.dumps({"turns": turns, "context": await snapshot(context)}))
    return plain


async def dialogs(name: str) -> dict[str, Told]:
    """All dialogs of a bot, one after the other, and once more all at a time."""
    bot = importlib.import_module(f"tests.bots.chatsky.{name}")
    await bot.pipeline.context_storage.connect()
    first = {ctx_id: await dialog(bot.pipeline, ctx_id, steps) for ctx_id, steps in bot.DIALOGS.items()}
    await bot.pipeline.context_storage.clear_all()
    names = list(reversed(first))
    again = await asyncio.gather(*(dialog(bot.pipeline, ctx_id, bot.DIALOGS[ctx_id]) for ctx_id in names))
    for ctx_id, told in zip(names, again, strict=True):
        assert told == first[ctx_id], f"the dialog {ctx_id!r} of {name} does not always go the same way"
    return first


async def main(names: tuple[str, ...]) -> None:
    """Print what all these bots answer."""
    logging.disable(logging.CRITICAL)  # Chatsky logs with a traceback what the bots do wrong on purpose
    sys.stdout.write(json.dumps({name: await dialogs(name) for name in names}))


if __name__ == "__main__":
    asyncio.run(main(tuple(sys.argv[1:]) or NAMES))
