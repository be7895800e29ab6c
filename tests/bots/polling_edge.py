"""A polling interface as a user of Chatsky may have written it: a file to read from, one to write to, and bad days."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from chatsky import Context, Message
from chatsky.messengers.common import PollingMessengerInterface

INBOX, OUTBOX = "TEST_INBOX", "TEST_OUTBOX"


class FileInterface(PollingMessengerInterface):
    """Lines `context: text` in, lines `context: answer` out. Every third call to a method raises."""

    def __init__(self) -> None:
        super().__init__()
        self._read = 0
        self._calls = {"request": 0, "respond": 0}
        self._unsent: list[str] = []

    def _fail_sometimes(self, method: str) -> None:
        self._calls[method] += 1
        if self._calls[method] % 3 == 0:
            raise OSError(f"{method}: not today")

    def _request(self) -> list[tuple[Message, str]]:
        self._fail_sometimes("request")
        self._send()
        lines = Path(os.environ[INBOX]).read_text().splitlines()
        if len(lines) == self._read:
            time.sleep(0.02)  # blocks, as only a thread may
        new, self._read = lines[self._read :], len(lines)
        return [(Message(text), ctx_id) for ctx_id, text in (line.split(": ", 1) for line in new)]

    def _respond(self, responses: list[Context]) -> None:
        self._unsent += [f"{context.id}: {context.last_response.text}" for context in responses]
        self._fail_sometimes("respond")
        self._send()

    def _send(self) -> None:
        with Path(os.environ[OUTBOX]).open("a") as outbox:
            outbox.write("".join(f"{line}\n" for line in self._unsent))
        self._unsent.clear()


class Inspecting(FileInterface):
    """Also tells which task asyncio uses."""

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        self._unsent.append(asyncio.Task.__module__)
        await super().connect(*args, **kwargs)


an_instance = FileInterface()


def a_function() -> FileInterface:
    return FileInterface()


def failing() -> FileInterface:
    raise KeyError("TELEGRAM_TOKEN")


nothing = 7
