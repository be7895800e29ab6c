"""Refuses what must never come in from the wire: pickles, and attachments that point at the worker's own disk.

Looks at plain parsed JSON, before any model is built from it: Chatsky's `Message` unpickles base64 from several places
while it validates, and its attachments read any local path (docs/decisions/0006).
"""

from typing import Any, Final

from interfaces.data_model import PICKLED_FIELDS
from interfaces.errors import Reason, RequestRejected

URL_SCHEMES: Final = ("http://", "https://")
_TEXT: Final = {"text"}


def refuse_unsafe(message: Any, *others: Any) -> None:
    """Raise `RequestRejected(unsafe-payload)` where a message, or JSON that travels beside it, is unsafe to build
    from."""
    if type(message) is dict and message.keys() == _TEXT and type(message["text"]) is str and not any(others):
        return  # As most messages are: three calls, and 21 to look for what cannot be there.
    refuse_pickles(message, *others)
    if not isinstance(message, dict):
        return
    origin = message.get("origin")
    if isinstance(origin, dict) and isinstance(origin.get("message"), str):
        raise _unsafe(
            "message.origin.message is a string, which Chatsky would unpickle; send an object or leave it out"
        )
    _refuse_local_files(message.get("attachments"))


def refuse_pickles(*roots: Any) -> None:
    """Raise `RequestRejected(unsafe-payload)` where parsed JSON marks anything in it as a pickle."""
    pending = list(roots)
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if PICKLED_FIELDS in value:
                raise _unsafe(f"the key {PICKLED_FIELDS!r} marks pickled values; send JSON values only")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _refuse_local_files(attachments: Any) -> None:
    # Every object below, not only known attachment types: groups nest them, and an unknown type may be known tomorrow.
    pending = [attachments]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.get("cached_filename") is not None:
                raise _unsafe("an attachment carries 'cached_filename', a path on the receiver's disk; leave it out")
            source = value.get("source")
            if isinstance(source, str) and not source.lower().startswith(URL_SCHEMES):
                raise _unsafe("an attachment's 'source' is not an http or https URL; send a URL or an 'id'")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _unsafe(detail: str) -> RequestRejected:
    return RequestRejected(Reason.UNSAFE_PAYLOAD, detail)
