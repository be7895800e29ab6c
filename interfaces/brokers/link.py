"""One AMQP connection, made when somebody needs it and it is not there. `brokers.rabbitmq` has two of them."""

import asyncio
from contextlib import AsyncExitStack, suppress

import aio_pika
import yarl
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from interfaces.brokers import declare
from interfaces.brokers.bounded import bounded
from interfaces.brokers.mapping import amqp_errors
from interfaces.errors import BrokerUnavailable, SwitchboardError

HEARTBEAT_SECONDS = 10
"""Bounds how long a half-open connection goes unnoticed; the library's default of 60 s means minutes."""

CLOSE_SECONDS = 3.0
PORTS = {"amqp": 5672, "amqps": 5671}


class Link:
    """One connection, opened when somebody needs it and it is not there."""

    def __init__(self, url: str, purpose: str, connect_timeout: float) -> None:
        given = yarl.URL(url)
        defaults = {"heartbeat": str(HEARTBEAT_SECONDS), "name": f"switchboard {purpose}"}
        self._url = given.with_query(defaults | dict(given.query))
        self._doing = f"connecting to RabbitMQ at {given.host}:{given.port or PORTS.get(given.scheme, '')}"
        self._timeout = connect_timeout
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._ended = False

    async def get(self) -> AbstractConnection:
        """The open connection; one attempt to make it where there is none."""
        async with self._lock:
            if self._ended:
                raise BrokerUnavailable("this broker object is closed")
            if self._connection is None or _is_lost(self._connection):
                await self._drop()
                with amqp_errors(self._doing):
                    self._connection = await self._connect()
                declare.check_version(self._connection)
            return self._connection

    async def _connect(self) -> AbstractConnection:
        connection = aio_pika.Connection(self._url)
        async with AsyncExitStack() as undoing:
            # aio-pika closes a connection that failed only when it is collected, which may be outside of any loop.
            undoing.push_async_callback(connection.close)
            await connection.connect(timeout=self._timeout)
            undoing.pop_all()
        return connection

    async def close(self) -> None:
        """Close the connection for good. Never raises, may be repeated."""
        self._ended = True
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SwitchboardError), amqp_errors("closing a connection"):
                await bounded(connection.close(), CLOSE_SECONDS)


def _is_lost(connection: AbstractConnection) -> bool:
    # `connection.is_closed` only tells whether `close` was called on this side: a lost connection counts as open there.
    return connection.transport is None or connection.transport.connection.is_closed


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel, within a bounded time and whatever state it is in. Never raises."""
    with suppress(SwitchboardError), amqp_errors("closing a channel"):
        await bounded(_closed(channel), CLOSE_SECONDS)


async def _closed(channel: AbstractChannel) -> None:
    await channel.close()
