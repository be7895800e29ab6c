"""A web server on this machine that misbehaves as told, with certificates of an authority of its own, and the network
in which public addresses lead to it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpcore

from tests.services.authority import Authority

Handler = Callable[[asyncio.StreamWriter, str], Awaitable[None]]
"""Writes the whole answer to a request for a path with its query."""


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Handler:
    """A whole answer with `headers`, of whose names `_` stands for `-`."""

    async def write(writer: asyncio.StreamWriter, _: str) -> None:
        lines = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} As Told\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return write


class WebServer:
    """Answers `handlers[path]` on `127.0.0.1:port`, by TLS where a context is given."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.handlers: dict[str, Handler] = {}
        self.requests: list[str] = []
        """Heads of all requests, as they came."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                path = head.split(" ", 2)[1]
                await self.handlers[path](writer, path)
        finally:
            self._running.discard(task)
            writer.close()


class Wiring(httpcore.AsyncNetworkBackend):
    """A network in which each public address leads to a server of the test, and every connection is noted."""

    def __init__(self, ports: dict[int, int]) -> None:
        self._ports = ports
        self._real = httpcore.AnyIOBackend()
        self.dead: set[str] = set()
        """Addresses that refuse connections."""
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError("refused")
        return await self._real.connect_tcp("127.0.0.1", self._ports[port], *args, **options)


class Trusted:
    """An authority; `trusting` is a client that trusts it and no others."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory, "authority")
        self.trusting = ssl.create_default_context(cafile=self._authority.file)

    def server(self, host: str) -> ssl.SSLContext:
        """A server that proves to be `host`."""
        issued = self._authority.issue(host, host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        return context
