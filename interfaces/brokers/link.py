"""One AMQP connection, to any node of the broker, made when somebody needs it and it is not there.

`brokers.rabbitmq` has two of them, which may lead to different nodes. No node is preferred: the order is random, so
that the connections of many processes spread, and the node a connection was lost to is the last to be tried again.
"""

import asyncio
import logging
import random
from collections import deque
from contextlib import AsyncExitStack, suppress

import aio_pika
import yarl
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from interfaces.brokers import declare
from interfaces.brokers.bounded import bounded
from interfaces.brokers.encryption import is_unverified, tls_context
from interfaces.brokers.mapping import amqp_errors
from interfaces.brokers.nodes import node_urls
from interfaces.errors import BrokerRefused, BrokerUnavailable, SwitchboardError
from interfaces.telemetry import Telemetry

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10
"""Bounds how long a half-open connection goes unnoticed; the library's default of 60 s means minutes."""

CLOSE_SECONDS = 3.0
PORTS = {"amqp": 5672, "amqps": 5671}


class Link:
    """One connection, opened when somebody needs it and it is not there.

    :param url: of one node, or of several, separated by commas.
    :param purpose: what the broker shows as the connection's name.
    :param connect_timeout: seconds that each node has to answer.
    :param telemetry: counts the times it is made anew.
    """

    def __init__(self, url: str, purpose: str, connect_timeout: float, telemetry: Telemetry | None = None) -> None:
        self._metrics = (telemetry or Telemetry()).metrics
        nodes = [yarl.URL(node) for node in node_urls(url)]
        defaults = {"heartbeat": str(HEARTBEAT_SECONDS), "name": f"switchboard {purpose}"}
        self._nodes = deque(node.with_query(defaults | dict(node.query)) for node in random.sample(nodes, k=len(nodes)))
        """The next one to try comes first."""
        self._timeout = connect_timeout
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._was_connected = False
        self._ended = False

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as anybody knows."""
        return self._connection is not None and not _is_lost(self._connection)

    async def get(self) -> AbstractConnection:
        """The open connection; one attempt at each node to make it where there is none.

        Raises `BrokerUnavailable` with what every node answered, or `BrokerRefused` with the first refusal.
        """
        async with self._lock:
            if self._ended:
                raise BrokerUnavailable("this broker object is closed")
            if self._connection is None or _is_lost(self._connection):
                if self._connection is not None:
                    self._nodes.rotate(-1)
                await self._drop()
                self._connection = await self._connect()
                self._metrics.reconnects_total["rabbitmq"] += self._was_connected
                self._was_connected = True
            return self._connection

    async def _connect(self) -> AbstractConnection:
        failures: list[BrokerUnavailable] = []
        while len(failures) < len(self._nodes):
            try:
                return await self._connect_to(self._nodes[0])
            except (BrokerUnavailable, BrokerRefused) as error:
                self._nodes.rotate(-1)
                # A refusal is for somebody to mend, so it is told at once; the next attempt asks another node.
                if isinstance(error, BrokerRefused) or len(self._nodes) == 1:
                    raise
                failures.append(error)
        raise BrokerUnavailable("; ".join(map(str, failures))) from failures[-1]

    async def _connect_to(self, node: yarl.URL) -> AbstractConnection:
        place = f"{node.host}:{node.port or PORTS.get(node.scheme, '')}"
        if is_unverified(node):
            logger.warning("the certificate of RabbitMQ at %s is not verified: its URL says no_verify_ssl=1", place)
        # Made for each connection, because certificates are renewed while workers run.
        context = await asyncio.to_thread(tls_context, node) if node.scheme == "amqps" else None
        connection = aio_pika.Connection(node, ssl_context=context)
        with amqp_errors(f"connecting to RabbitMQ at {place}"):
            async with AsyncExitStack() as undoing:
                # aio-pika closes a connection that failed only when it is collected, maybe outside of any loop.
                undoing.push_async_callback(connection.close)
                await connection.connect(timeout=self._timeout)
                declare.check_version(connection)
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
