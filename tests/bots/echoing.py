"""Says back what it is told, attachments included, each file with its bytes in reverse order.

A chat whose id begins with "slow" or whose text is "slow" takes two seconds.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from interfaces import Context, Message
from interfaces.messages import CallbackQuery, DataAttachment, MediaGroup


async def bot(ctx: Context) -> Message | None:
    request = ctx.last_request
    if request.text == "slow":
        await asyncio.sleep(2)
    if request.text == "fail":
        raise ValueError("told to")
    said = [f"{ctx.current_turn_id}: {request.text}"]
    said += [query.query_string for query in request.attachments or [] if isinstance(query, CallbackQuery)]
    attachments = [
        await _back(ctx, attachment)
        for attachment in request.attachments or []
        if not isinstance(attachment, CallbackQuery)
    ]
    if request.text == "album":
        attachments = [MediaGroup(group=attachments)]
    return Message("; ".join(said), attachments=attachments or None)


async def _back(ctx: Context, attachment: Any) -> Any:
    if not isinstance(attachment, DataAttachment):
        return attachment
    data = await ctx.attachment_bytes(attachment)
    path = Path(tempfile.mkdtemp()) / "back"
    path.write_bytes(data[::-1])
    return type(attachment)(source=path)
