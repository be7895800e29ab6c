"""Finds every file in a message's attachments, however deep, and builds a message in which some are changed.

Files are attachments of the kinds that have bytes, also in a media group, and also in fields nobody declared (a
`thumbnail` of Telegram's), where they are models or plain JSON. The message given is never changed. Used by the
attachment transfer.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from interfaces.attachments import TAG
from interfaces.data_model import MAX_DEPTH
from interfaces.messages import (
    Animation,
    Audio,
    DataAttachment,
    Document,
    Image,
    Message,
    Sticker,
    Video,
    VideoMessage,
    VoiceMessage,
)

_FILES: Final = (Animation, Audio, Document, Image, Sticker, Video, VideoMessage, VoiceMessage)
_TAGS: Final = frozenset(kind.model_fields[TAG].default for kind in _FILES)

Change = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""From the fields of a file (`source`, `id`, what else it has) to those that change; none where it stays as it is."""


async def change_files(message: Message, change: Change) -> Message:
    """`message` with what `change` says of each file in it, and itself where that is nothing. Raises what `change`
    raises."""
    attachments = await _changed(message.attachments, change, 0)
    return message if attachments is message.attachments else message.model_copy(update={"attachments": attachments})


async def _changed(value: Any, change: Change, depth: int) -> Any:
    """`value` itself where nothing in it changes. What is nested too deep to be written as JSON stays as it is."""
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, list | tuple):
        items = [await _changed(item, change, depth + 1) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if not isinstance(value, BaseModel | dict):
        return value
    fields = value if isinstance(value, dict) else {**vars(value), **(value.model_extra or {})}
    updates = {}
    for name, field in fields.items():
        updated = await _changed(field, change, depth + 1)
        if updated is not field:
            updates[name] = updated
    if isinstance(value, DataAttachment) or (isinstance(value, dict) and _is_file(value)):
        updates |= await change(fields)
    if not updates:
        return value
    return {**value, **updates} if isinstance(value, dict) else value.model_copy(update=updates)


def _is_file(value: dict[Any, Any]) -> bool:
    tag = value.get(TAG)
    return isinstance(tag, str) and tag in _TAGS
