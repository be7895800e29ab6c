"""Chatsky's attachments are read by the rules of this process, not by Chatsky's.

Chatsky's own `DataAttachment.get_bytes` opens any URL, whoever it came from, by a call that blocks the event loop, and
takes whatever comes, for as long as it takes. Pipelines build attachments themselves, from what was stored for one, so
it is the method that is replaced and not the attachments. Needs the extra `chatsky`. Called where a pipeline, or an
interface of Chatsky's, is put on the broker.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import HttpUrl

from interfaces import attachments
from interfaces.errors import AttachmentUrlRefused
from interfaces.messengers import MessengerInterfaceWithAttachments
from interfaces.nested_loops import nested_loops_prevented

with nested_loops_prevented():
    from chatsky.core.message import DataAttachment

FetchUrl = Callable[[str], Awaitable[bytes]]
"""Gives the bytes behind a URL, or raises `AttachmentError`."""

_FETCH_URL: Final = "_switchboard_fetch_url"
"""Attribute of an interface of Chatsky's: how it gets URLs, for its own `get_attachment_bytes` knows ids alone."""


class _Downloads(NamedTuple):
    """What `get_bytes` needs of an interface."""

    attachments_directory: Path
    get_attachment_bytes: FetchUrl


def use_own_downloads() -> None:
    """From now on Chatsky downloads no attachment itself in this process. May be repeated."""
    DataAttachment.get_bytes = _get_bytes


def download_by(interface: Any, fetch_url: FetchUrl) -> None:
    """Let the URLs that `interface`, one of Chatsky's, is to send be fetched by `fetch_url`."""
    setattr(interface, _FETCH_URL, fetch_url)
    use_own_downloads()


async def _get_bytes(self: Any, from_interface: Any) -> bytes:
    if isinstance(self.source, HttpUrl) and not isinstance(from_interface, MessengerInterfaceWithAttachments):
        from_interface = _downloads(from_interface)
    # Chatsky's have the fields of ours.
    return await attachments.DataAttachment.get_bytes(self, from_interface)


def _downloads(interface: Any) -> _Downloads:
    fetch_url = getattr(interface, _FETCH_URL, None)
    if fetch_url is None:
        raise AttachmentUrlRefused(
            f"{type(interface).__name__} cannot fetch an attachment's URL here: call "
            "`attachment.get_bytes(ctx.pipeline.messenger_interface)`, which fetches from the hosts in "
            "SWITCHBOARD_FETCH_FROM"
        )
    return _Downloads(interface.attachments_directory, fetch_url)
