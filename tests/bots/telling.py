"""Bots that handle what is said in every way that fails, and keep it out of what they raise themselves."""

import asyncio
from typing import Any

from interfaces import Context, Message, Reject, Retry

RETRIED: set[str | None] = set()


async def bot(ctx: Context) -> Any:
    """Remembers what it is told; the first word says how it fails."""
    text = ctx.last_request.text or ""
    ctx.misc["said"] = text
    match text.split(" ")[0]:
        case "raise":
            raise ValueError("told to")
        case "reject":
            raise Reject("no")
        case "retry" if ctx.request_id not in RETRIED:
            RETRIED.add(ctx.request_id)
            raise Retry(after=0, reason="once more")
        case "late":
            await asyncio.Event().wait()
        case "bytes":
            ctx.misc["said"] = text.encode()
        case "object":
            ctx.misc["said"] = [text, object()]
        case "number":
            return len(text)
        case "invalid":
            return Message.model_validate({"text": [text]})
        case "large":
            return text * 100_000
    return f"{ctx.current_turn_id}: {text}"
