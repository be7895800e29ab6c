"""`CLIMessengerInterface`: a dialog with one user in a terminal, or with a script through a pipe.

Input is awaited by the event loop rather than by a thread in `input()`: a thread could not be told to stop, and would
take the next line after a cancellation. What a bot says is printed without control characters, for it may repeat
what strangers wrote.
"""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from io import UnsupportedOperation
from typing import TextIO
from uuid import uuid4

from interfaces.context import Context
from interfaces.messages import Message
from interfaces.messengers import PipelineRunnerFunction, PollingMessengerInterface, Updates

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor movement
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"  # title, clipboard, links
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class CLIMessengerInterface(PollingMessengerInterface):
    """Reads requests from standard input, a line each, and prints responses. The end of input ends `connect`.

    :param intro: printed when the dialog begins.
    :param prompt_request: printed before each request.
    :param prompt_response: printed before each response.
    :param out_descriptor: where responses are printed; by default standard output.
    """

    def __init__(
        self,
        intro: str | None = None,
        prompt_request: str = "request: ",
        prompt_response: str = "response: ",
        out_descriptor: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._ctx_id = str(uuid4())
        self._intro = intro
        self._prompt_request = prompt_request
        self._prompt_response = prompt_response
        self._descriptor = out_descriptor
        self._unread = b""
        self._ended = False

    async def connect(
        self,
        pipeline_runner: PipelineRunnerFunction,
        loop: Callable[[], bool] = lambda: True,
        timeout: float = 0,
    ) -> None:
        """Begin a new dialog and go on until the input ends, `loop()` is False, or it is cancelled."""
        self._ctx_id = str(uuid4())
        self._ended = False
        if self._intro is not None:
            _show(sys.stdout, f"{self._intro}\n")
        await super().connect(pipeline_runner, lambda: not self._ended and loop(), timeout)

    async def _request(self) -> Updates:
        _show(sys.stdout, self._prompt_request)
        line = await self._read_line()
        if line is None:
            self._ended = True
            return []
        return [(Message(line), self._ctx_id)]

    async def _respond(self, responses: list[Context]) -> None:
        for context in responses:
            out = sys.stdout if self._descriptor is None else self._descriptor
            _show(out, f"{self._prompt_response}{printable(_shown(context.last_response))}\n")

    async def _read_line(self) -> str | None:
        """The next line without its end, `None` at the end of input."""
        try:
            descriptor = sys.stdin.fileno()
        except UnsupportedOperation:  # a stand-in for a console, such as StringIO, which does not block
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._unread:
            await _readable(descriptor)
            try:
                chunk = os.read(descriptor, 65536)
            except OSError:  # a terminal that is gone
                chunk = b""
            if not chunk:
                break
            self._unread += chunk
        line, newline, self._unread = self._unread.partition(b"\n")
        return line.decode(sys.stdin.encoding, errors="replace").rstrip("\r") if line or newline else None


def printable(text: str) -> str:
    """`text` without terminal escape sequences and control characters other than newline and tab."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def _shown(response: Message | None) -> str:
    """The text alone where there is nothing else to show, otherwise every field, as Chatsky prints it."""
    if response is None:
        return ""
    only_text = response.text is not None and not response.attachments
    return str(response.text) if only_text else str(response)


def _show(out: TextIO, text: str) -> None:
    out.write(text)
    out.flush()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll's answer for a regular file, which is always ready
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
