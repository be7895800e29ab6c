"""A proxy before RabbitMQ by which deliveries come late: behind the close of their channel.

RabbitMQ tells of a channel that it has closed from another process than the one that writes the channel's deliveries,
so some of those come after it. Here that is certain: the last one of every channel that is closed comes once more when
the client asks for its next channel, and again when that has its consumer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from pamqp import commands, constants

from interfaces.brokers.properties import FRAME
from tests.services.proxy import TcpProxy

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
DELIVER, CLOSE, OPEN, CONSUME_OK = (
    method.index.to_bytes(4, "big")
    for method in (commands.Basic.Deliver, commands.Channel.Close, commands.Channel.Open, commands.Basic.ConsumeOk)
)


class LateFrames(TcpProxy):
    """Forwards connections frame by frame. At most one of them loses channels."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.late: list[int] = []
        """The channel of each delivery that was sent late."""
        self._closed: tuple[asyncio.StreamWriter, int, bytes] | None = None
        """The client whose channel was closed, the channel, and its last delivery."""

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for _, method, frame in _frames(reader):
            if method == OPEN:
                self._send_late()
            writer.write(frame)
            await writer.drain()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last: dict[int, bytes] = {}
        async for channel, method, frame in _frames(reader):
            if method == DELIVER:
                last[channel] = frame
            elif not method and channel in last:
                last[channel] += frame
            elif method == CLOSE:
                self._closed = writer, channel, last[channel]
            writer.write(frame)
            if method == CONSUME_OK:
                self._send_late()
            await writer.drain()

    def _send_late(self) -> None:
        if self._closed is not None:
            client, channel, delivery = self._closed
            client.write(delivery)
            self.late.append(channel)


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes, bytes]]:
    """Channel, class and method (nothing where it has none), and all bytes of each frame."""
    with suppress(asyncio.IncompleteReadError):
        while start := await reader.readexactly(FRAME.size):
            if PROTOCOL_HEADER.startswith(start):
                yield 0, b"", start + await reader.readexactly(len(PROTOCOL_HEADER) - FRAME.size)
                continue
            kind, channel, length = FRAME.unpack(start)
            rest = await reader.readexactly(length + 1)
            yield channel, rest[:4] if kind == constants.FRAME_METHOD else b"", start + rest
