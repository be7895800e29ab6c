"""A TCP proxy that makes the faults of a network: cut and half-open connections, and answers that never arrive.

It listens on a free loopback port and forwards to one server, knows nothing of the protocol, and counts what it
carries, so that a test can assert that its fault happened. For tests of Redis and RabbitMQ alike.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

CHUNK = 64 * 1024


class TcpProxy:
    """Forwards connections to `host:port`: `async with TcpProxy(host, port) as proxy`, then connect to `proxy.port`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        """Port it listens on; kept when it is closed and started again."""
        self.sent = 0
        """Bytes forwarded from clients to the server."""
        self.received = 0
        """Bytes forwarded from the server to clients."""
        self.dropped = 0
        """Bytes of the server that `drop_replies` kept from clients."""
        self.accepted = 0
        """Connections taken from clients."""
        self.delay = 0.0
        """Seconds that each piece of data is held back, in both directions; may be changed at any time."""
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pauses = 0
        self._dropping = False

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    @property
    def ports(self) -> set[int]:
        """What the server sees as the ports of its clients."""
        servers = (writers[1] for writers in self._links.values() if len(writers) > 1)
        return {writer.get_extra_info("sockname")[1] for writer in servers}

    async def start(self) -> None:
        """Begin to listen: at first on a free port, after `close` on the same one."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse new connections and drop all there are, as a server that is down."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()
        self._pauses = 0
        self.resume()

    async def cut(self) -> None:
        """Drop all connections at once, unsent data included. New ones are taken."""
        links = list(self._links)
        for link in links:
            for writer in self._links[link]:
                writer.transport.abort()
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def pause(self) -> None:
        """Stall both directions and keep the connections, as a network that swallows packets. New ones stall too.

        Until it was resumed as often: faults that overlap do not end one another.
        """
        self._pauses += 1
        self._flowing.clear()

    def silence(self) -> None:
        """Take nothing more from the connections there are, for good, and keep them. New ones work."""
        for client, *_ in self._links.values():
            cast("asyncio.Transport", client.transport).pause_reading()

    def drop_replies(self) -> None:
        """Forward requests, throw away answers. A connection that lost one ends at its next answer after `resume`."""
        self._dropping = True

    def resume(self) -> None:
        """Undo one `pause`, and `drop_replies`."""
        self._dropping = False
        self._pauses = max(0, self._pauses - 1)
        if not self._pauses:
            self._flowing.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        writers = [writer]
        # A task of our own: it can be cancelled and awaited, which the server's own handler tasks do not offer.
        link = asyncio.create_task(self._link(reader, writers))
        self._links[link] = writers
        link.add_done_callback(self._links.pop)

    async def _link(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        directions: list[asyncio.Task[None]] = []
        try:
            await self._flowing.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            writers.append(server_writer)
            directions.append(asyncio.create_task(self._requests(reader, server_writer)))
            directions.append(asyncio.create_task(self._replies(server_reader, writers[0])))
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # no server there: the client sees its connection end
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for writer in writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _passage(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flowing.wait()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passage()
            self.sent += len(data)
            writer.write(data)
            await writer.drain()
        await self._passage()  # the end of a connection is a packet too

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        while data := await reader.read(CHUNK):
            await self._passage()
            if self._dropping:
                self.dropped += len(data)
                lost = True
            elif lost:
                return
            else:
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        await self._passage()
