"""A bot that reads every file it is sent and answers with one of its own, and an interface that sends it files.

The interface takes what it sends from `files.json` in the directory `FILES`: a list of polls, each a list of messages
of [type, path] pairs. It appends what it was answered to `answers.jsonl` there.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import ClassVar

import interfaces
from interfaces import Context, DataAttachment, Document, MediaGroup, Message, MessengerInterfaceWithAttachments
from interfaces.errors import AttachmentError
from interfaces.messengers import PollingMessengerInterface, Updates

MARK = b"seen"
FILES = Path(os.environ.get("FILES", tempfile.gettempdir()))


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


async def careful(ctx: Context) -> str:
    """Tell what is wrong with the one file that was sent."""
    (attachment,) = ctx.last_request.attachments or []
    assert isinstance(attachment, DataAttachment)
    try:
        return f"read {len(await ctx.attachment_bytes(attachment))} bytes"
    except AttachmentError as error:
        return f"{type(error).__name__}: {error}"


async def bot(ctx: Context) -> Message:
    """Tell what was read, and send the last file back, with a mark at its end."""
    told: list[str] = []
    data = b""
    for attachment in ctx.last_request.attachments or []:
        for file in attachment.group if isinstance(attachment, MediaGroup) else [attachment]:
            assert isinstance(file, DataAttachment)
            data = await ctx.attachment_bytes(file)
            told.append(digest(data))
    answer = FILES / f"answer-{ctx.request_id}"
    with answer.open("wb") as written:
        written.writelines((data, MARK))
    return Message(" ".join(told), attachments=[Document(source=answer)])


class FileInterface(PollingMessengerInterface, MessengerInterfaceWithAttachments):
    """Sends one poll's messages after the other, each in a context of its own, and ends."""

    supported_request_attachment_types: ClassVar = {DataAttachment, MediaGroup}
    supported_response_attachment_types: ClassVar = {DataAttachment}

    def __init__(self) -> None:
        super().__init__(FILES / "edge")
        self._polls: list[list[list[tuple[str, str]]]] = json.loads((FILES / "files.json").read_text())
        self._sent = 0

    def _request(self) -> Updates:
        if not self._polls:
            raise EOFError
        updates: Updates = []
        for files in self._polls.pop(0):
            attachments = [getattr(interfaces, kind)(source=Path(path)) for kind, path in files]
            message = Message(attachments=attachments if len(files) == 1 else [MediaGroup(group=attachments)])
            self._sent += 1
            updates.append((message, f"user-{self._sent}"))
        return updates

    def _respond(self, responses: list[Context]) -> None:
        with (FILES / "answers.jsonl").open("a") as answers:
            for context in responses:
                response = context.last_response
                assert response is not None
                assert response.attachments is not None
                sources = [file.source for file in response.attachments if isinstance(file, DataAttachment)]
                got = [digest(source.read_bytes()) for source in sources if isinstance(source, Path)]
                answers.write(json.dumps({"ctx_id": context.id, "text": response.text, "got": got}) + "\n")

    async def get_attachment_bytes(self, source: str) -> bytes:
        """Nothing of this messenger's has an id."""
        raise FileNotFoundError(source)
