"""Says back what it is told, attachments included, each file with its bytes in reverse order.

A message "slow" takes two seconds, "fail" fails, and "album" gets its file back as a group, as it was and in reverse.
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
    attachments = list(request.attachments or [])
    said = [str(ctx.current_turn_id), str(request.text)]
    said += [query.query_string for query in attachments if isinstance(query, CallbackQuery)]
    back = [await _back(ctx, attachment) for attachment in attachments if not isinstance(attachment, CallbackQuery)]
    if request.text == "album":
        back = [MediaGroup(group=[*back, *attachments])]
    return Message(": ".join(said), attachments=back or None)


async def _back(ctx: Context, attachment: Any) -> Any:
    if not isinstance(attachment, DataAttachment):
        return attachment
    data = await ctx.attachment_bytes(attachment)
    path = Path(tempfile.mkdtemp()) / "back"
    path.write_bytes(data[::-1])
    return attachment.model_copy(update={"id": None, "source": path})
