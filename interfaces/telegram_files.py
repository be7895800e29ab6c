"""Telegram's files in pieces, from its servers into the attachment store and from this disk to its servers.

Chatsky and python-telegram-bot hold a file in memory as a whole, several times over: one of 20 MiB takes 170 MiB on its
way in, and as much on its way out (measured). Here it takes a few pieces of it. Used by `interfaces.edge` for Chatsky's
own ways to fetch and to send; what a user's interface does instead stays as it is.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.errors import AttachmentTooLarge
from interfaces.references import Reference

PIECE_BYTES: Final = 1024 * 1024


def can_stream(interface: Any) -> bool:
    """Whether `interface` fetches files by Chatsky's own method, over the client this module knows to use."""
    is_chatskys = type(interface).get_attachment_bytes.__module__.startswith("chatsky.messengers.telegram")
    return is_chatskys and _client(interface) is not None


async def keep_file(interface: Any, transfer: AttachmentTransfer, file_id: str) -> Reference:
    """Fetch a file of Telegram's and put it into the attachment store.

    Raises `AttachmentTooLarge`, where possible before anything is fetched, and what Telegram's library raises.
    """
    file = await interface.application.bot.get_file(file_id)
    most = transfer.store.max_bytes
    _refuse_large(file_id, file.file_size or 0, most)
    if not file.file_path.startswith(("http://", "https://")):
        return await transfer.keep(Path(file.file_path))  # a Bot API server on this machine, in its local mode
    async with _downloaded(_client(interface), file.file_path, partial(_refuse_large, file_id, most=most)) as path:
        return await transfer.keep(path)


def stream_sent_files(interface: Any) -> None:
    """Have `interface` send files that are on this disk in pieces."""
    original = interface.cast_message_to_telegram_and_send

    async def send(bot: Any, chat_id: int, message: Any) -> None:
        with ExitStack() as files:
            if message.attachments:
                opened = [_opened(attachment, files) for attachment in message.attachments]
                message = message.model_copy(update={"attachments": opened})
            await original(bot, chat_id, message)

    interface.cast_message_to_telegram_and_send = send


def _opened(attachment: Any, files: ExitStack, *, in_group: bool = False) -> Any:
    """A copy that gives an open file where it would give bytes; both are what python-telegram-bot sends."""
    members = getattr(attachment, "group", None)
    if members is not None:
        return attachment.model_copy(update={"group": [_opened(member, files, in_group=True) for member in members]})
    path = getattr(attachment, "source", None)
    if not isinstance(path, Path):
        return attachment
    from telegram import InputFile

    async def get_bytes(_: object) -> InputFile:
        file = files.enter_context(await asyncio.to_thread(path.open, "rb"))
        name = getattr(attachment, "filename", None)
        return InputFile(file, filename=name, attach=in_group, read_file_handle=False)

    copy = attachment.model_copy()
    vars(copy)["get_bytes"] = get_bytes  # Found before the method of its class, which would read the file.
    return copy


def _client(interface: Any) -> Any:
    # Private, and the one way to a response in pieces that goes through the proxy and the pool the user has set up.
    return getattr(interface.application.bot.request, "_client", None)


@asynccontextmanager
async def _downloaded(client: Any, url: str, refuse_large: Any) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="switchboard-") as directory:
        path, size = Path(directory) / "file", 0
        with path.open("wb") as file:
            async with client.stream("GET", url) as response:
                if response.status_code != 200:
                    # Not the library's own error: its text repeats the URL, which holds the bot's token.
                    raise ConnectionError(f"Telegram answered with status {response.status_code}")
                async for piece in response.aiter_bytes(PIECE_BYTES):
                    size += len(piece)
                    refuse_large(size)
                    await asyncio.to_thread(file.write, piece)
        yield path


def _refuse_large(file_id: str, size: int, most: int) -> None:
    if size > most:
        raise AttachmentTooLarge(
            f"Telegram's file {file_id[:60]!r} has {size} bytes or more, and {most} are allowed: send a smaller one, "
            "or raise SWITCHBOARD_ATTACHMENTS_MAX_BYTES on every edge and worker"
        )
