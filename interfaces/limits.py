"""How much one request, one reply and one context may be: a value passed to whoever reads or writes them.

What a request asks too much of is found before any model is built from it, so that it costs its parsing and no more.
`worker.settings` has a setting for each of these; the table of all limits is docs/limits.md.
"""

from dataclasses import dataclass
from typing import Any, Final

from interfaces.data_model import MAX_DEPTH
from interfaces.errors import Reason, RequestRejected

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a request and of a reply. Part of the wire contract: a limit that is set may be lower, never higher."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one worker. Sizes are bytes of JSON as it travels or is stored."""

    body_bytes: int = MAX_BODY_BYTES
    depth: int = MAX_DEPTH
    """Levels of arrays and objects in a request."""
    nodes: int = 10_000
    """Values in a request, at every level: each costs memory and time, however few bytes it has."""
    attachments: int = 100
    """Attachments of a message, those in groups included."""
    text: int = 100_000
    """Characters of a message's text."""
    reply_bytes: int = MAX_BODY_BYTES
    misc_bytes: int = 512 * 1024
    """Of `misc` as a bot leaves it."""
    context_bytes: int = 1024 * 1024
    """Of what is stored for a context beside its turns: misc and framework data."""
    turn_bytes: int = 2 * 1024 * 1024
    """Of one stored turn. With it `history` bounds what a turn loads."""


WIDEST: Final = Limits(nodes=MAX_BODY_BYTES, attachments=MAX_BODY_BYTES, text=MAX_BODY_BYTES)
"""What the wire contract itself allows, for those who send and cannot know what a worker was told."""


def refuse_excess(body: dict[str, Any], limits: Limits) -> None:
    """Raise `RequestRejected` where a parsed body has too long a text or too many attachments."""
    message = body.get("message")
    if isinstance(message, str):
        _refuse_text(message, limits)
    if not isinstance(message, dict):
        return
    _refuse_text(message.get("text"), limits)
    count = _attachments(message.get("attachments"))
    if count > limits.attachments:
        raise RequestRejected(
            Reason.TOO_MANY_ATTACHMENTS, f"the message has {count} attachments, the limit is {limits.attachments}"
        )


def _refuse_text(text: Any, limits: Limits) -> None:
    if isinstance(text, str) and len(text) > limits.text:
        raise RequestRejected(Reason.TEXT_TOO_LONG, f"the text has {len(text)} characters, the limit is {limits.text}")


def _attachments(attachments: Any) -> int:
    """How many there are, each level of the groups among them looked at once."""
    count, pending = 0, [attachments]
    while pending:
        level = pending.pop()
        if isinstance(level, list):
            count += len(level)
            pending.extend(item["group"] for item in level if isinstance(item, dict) and "group" in item)
    return count


def require_size(what: str, size: int, limit: int, setting: str) -> None:
    """Raise `RequestRejected(reply-invalid)` where what a bot has left is larger than `limit` bytes.

    The setting's name is for operators; the sender is only told that it is too large.
    """
    if size > limit:
        raise RequestRejected(
            Reason.REPLY_INVALID,
            f"{what} is too large",
            internal=f"{what} has {size} bytes, the limit is {limit} (SWITCHBOARD_{setting.upper()})",
        )
