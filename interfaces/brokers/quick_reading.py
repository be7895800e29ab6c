"""Reads what comes on an open connection with less ceremony than aiormq and pamqp do.

aiormq reads each frame in three pieces under a lock. Here its receiver of frames is replaced, when the RabbitMQ broker
is imported, by one that takes what the socket has given, and of that as many whole messages to a consumer of ours at
once as follow each other. The handshake and every other frame still go the library's way. Where the library looks
different, nothing is replaced (docs/decisions/0022).
"""

from asyncio import IncompleteReadError
from typing import Any, Final
from uuid import uuid4

from aiormq import connection
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import constants, frame
from pamqp.exceptions import PAMQPException

from interfaces.brokers.properties import FRAME
from interfaces.brokers.whole_messages import Parts, deliver_start, read_message

CONSUMER: Final = f"requests.{uuid4().hex[:8]}"
"""Consumer tag of those who take whole messages. Nobody else in this process has it, who reads by aiormq as well."""

AT_A_TIME: Final = 32
"""Messages after which others have their turn: what is in the socket's buffer is read without a wait in between."""

CHUNK: Final = 128 * 1024
"""Bytes taken from the stream at once: asyncio stops reading from the socket when it holds more."""

_OURS: Final = deliver_start(CONSUMER)


class Messages(list[Parts]):
    """Whole messages that follow each other on a channel, in the place of a frame."""

    def __repr__(self) -> str:
        return f"<{len(self)} messages>"  # aiormq logs what it reads, and nobody's words belong into a log.


_Library: Any = getattr(connection, "FrameReceiver", object)


class QuickReceiver(_Library):  # type: ignore[misc]  # which is a class of aiormq's, or nothing that is ever made
    """Gives frames to aiormq's reader, and `Messages` to the channels of our own consumers."""

    def __init__(self, reader: Any) -> None:
        super().__init__(reader)
        self._data = b""
        self._place = 0
        """Of the first byte of `_data` that was not given out."""

    async def get_frame(self) -> Any:
        """The next frame, with its size and channel."""
        if not self.started:
            return await self._first_frame()
        while True:
            found, needed = self._next()
            if found is not None:
                return found
            await self._read_on(needed)

    __anext__ = get_frame

    async def _first_frame(self) -> Any:
        try:
            return await super().get_frame()
        except StopAsyncIteration as error:
            # The handshake lets it through as it is. Seen on uvloop, which tells of the end before the first read.
            raise AMQPConnectionError("the server closed the connection before it said anything") from error

    def _next(self) -> tuple[Any, int]:
        """What can be given out now, or nothing and how far the data must reach."""
        data, start = self._data, self._place
        messages, number, needed = Messages(), 0, 0
        while len(messages) < AT_A_TIME:
            if len(data) < (needed := start + FRAME.size):
                break
            kind, channel, length = FRAME.unpack_from(data, start)
            if len(data) < (needed := needed + length + 1):
                break
            if messages and channel != number:
                break
            if kind == constants.FRAME_METHOD and data.startswith(_OURS, start + FRAME.size):
                parts, end = read_message(data, start + FRAME.size + len(_OURS), needed, channel)
                if parts is not None:
                    messages.append(parts)
                    start, number = end, channel
                    continue
                if end:  # The rest of it has not come yet.
                    needed = end
                    break
            if not messages:
                self._place = needed
                return _frame(data[start:needed]), 0
            break  # It goes out after the messages before it.
        self._place = start
        return ((0, number, messages), 0) if messages else (None, needed)

    async def _read_on(self, needed: int) -> None:
        rest = self._data[self._place :]
        missing = needed - len(self._data)
        try:
            more = await (self.reader.read(CHUNK) if missing < CHUNK else self.reader.readexactly(missing))
        except (IncompleteReadError, OSError) as error:
            raise AMQPConnectionError(f"the connection to the server was lost: {error!r}") from error
        if not more and not rest:
            raise StopAsyncIteration  # As the library has it at the end: its loop over frames ends.
        if not more:
            raise AMQPConnectionError("the connection to the server was lost in the middle of a frame")
        self._data, self._place = rest + more, 0


def _frame(data: bytes) -> Any:
    try:
        return frame.unmarshal(data)
    except PAMQPException as error:
        raise InvalidFrameError(str(error)) from error


def install() -> None:
    """Replace the library's receiver of frames. May be repeated."""
    if hasattr(_Library, "get_frame"):
        connection.FrameReceiver = QuickReceiver  # type: ignore[misc]  # which is one
