"""Publishes with confirms, so that every publish has a known outcome or says that it has none."""

import asyncio
from collections.abc import Awaitable

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from interfaces.brokers import Outgoing, declare
from interfaces.brokers.bounded import bounded
from interfaces.brokers.link import Link, close_channel
from interfaces.brokers.mapping import amqp_errors
from interfaces.brokers.properties import to_amqp
from interfaces.brokers.tick_writes import TickPublishes, can_write
from interfaces.errors import BrokerUnavailable, HeadersTooLarge, PublishTimeout, SwitchboardError, Unroutable
from interfaces.telemetry import Telemetry

MAX_PROPERTIES_BYTES = 131_072 - 64
"""RabbitMQ's default `frame_max`, less the frame's own bytes: AMQP 0-9-1 puts all properties into one frame, and a
broker closes the connection over a larger one."""


class _PublishingChannel:
    """A channel with confirms and the number of publishes that wait for theirs."""

    def __init__(self, raw: AbstractChannel, timeout: float, telemetry: Telemetry) -> None:
        self.raw = raw
        self.waiting = 0
        self._timeout = timeout
        self._ticks = TickPublishes(raw, timeout, telemetry) if can_write(raw) else None

    def publish(self, message: Outgoing) -> Awaitable[None]:
        """Publish and wait for the confirm. Raises what the client library raises, or `TimeoutError`."""
        return self._plain(message) if self._ticks is None else self._ticks.publish(message)

    async def _plain(self, message: Outgoing) -> None:
        await self.raw.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=to_amqp(message.properties),
            mandatory=message.mandatory,
            timeout=self._timeout,
        )


class _Opening:
    """A channel that is being opened, and what stood in the way."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.error: SwitchboardError | None = None


class Publisher:
    """The publishing channel, replaced after a publish that the broker refused or whose outcome it did not tell."""

    def __init__(self, link: Link, timeout: float, telemetry: Telemetry | None = None) -> None:
        self._link = link
        self._telemetry = telemetry or Telemetry()
        self._timeout = timeout
        self._waiting = 0
        self._opening: _Opening | None = None
        self._current: _PublishingChannel | None = None

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm; see `interfaces.brokers.Broker.publish`."""
        if message.properties.headers and (size := len(to_amqp(message.properties).marshal())) > MAX_PROPERTIES_BYTES:
            raise HeadersTooLarge(
                f"properties and headers have {size} bytes, at most {MAX_PROPERTIES_BYTES} fit a frame"
            )
        if self._waiting or (channel := self._usable()) is None:
            channel = await self._in_line()
        channel.waiting += 1
        try:
            with amqp_errors("publishing to %s %r", message.exchange or "queue", message.routing_key):
                try:
                    await channel.publish(message)
                except TimeoutError as error:
                    where = f"{message.exchange or 'queue'} {message.routing_key!r}"
                    raise PublishTimeout(f"publishing to {where}: no confirm within {self._timeout:g} s") from error
        except BrokerUnavailable as error:
            self._retire(channel)
            if _names_missing_exchange(error, message.exchange):
                raise Unroutable(f"{error}: no topology is declared there") from error
            raise
        finally:
            channel.waiting -= 1
            if channel is not self._current and channel.waiting == 0:
                await close_channel(channel.raw)

    async def _in_line(self) -> _PublishingChannel:
        """A usable channel, behind those that wait for one."""
        self._waiting += 1  # Whoever comes later does not overtake those that wait here.
        try:
            if self._usable() is not None:
                # One tick of the event loop, in which all before go on. Not a lock: it lets one go on in each tick,
                # and while more come than that, all of them wait for one another for good.
                await asyncio.sleep(0)
            while (current := self._usable()) is None:
                await self._opened()
            return current
        finally:
            self._waiting -= 1

    def _usable(self) -> _PublishingChannel | None:
        return None if self._current is None or self._current.raw.is_closed else self._current

    async def _opened(self) -> None:
        """Open a channel, or wait for whoever does: all of them fail together, each with an error of its own.

        Thousands may wait. One attempt after another, each with its time limit, would keep the last for hours.
        """
        if (opening := self._opening) is None:
            await self._open()
            return
        await opening.over.wait()
        if (error := opening.error) is not None:
            raise type(error)(str(error)) from error

    async def _open(self) -> None:
        self._opening = opening = _Opening()
        try:
            connection = await self._link.get()
            await self._until_not_blocked(connection)
            with amqp_errors("opening a channel to publish"):
                raw = await bounded(declare.raw_channel(connection, confirms=True), self._timeout)
                self._current = _PublishingChannel(raw, self._timeout, self._telemetry)
        except SwitchboardError as error:
            opening.error = error
            raise
        finally:  # Where it was cancelled, the next one opens it.
            self._opening = None
            opening.over.set()

    async def _until_not_blocked(self, connection: AbstractConnection) -> None:
        """Return at once, but under an alarm of the broker, which reads nothing then from who has published.

        A channel opened meanwhile would stay, neither answered nor closed, and the next attempt's beside it.
        """
        if connection.transport is not None:
            try:
                await bounded(connection.transport.connection.ready(), self._timeout)
            except TimeoutError as error:
                short = "RabbitMQ takes no messages now: it is short of memory or disk space"
                raise BrokerUnavailable(short) from error

    def _retire(self, channel: _PublishingChannel) -> None:
        """Publish nothing more on `channel`; the last publish that waits on it closes it.

        A returned publish does not come here: its outcome is known and the channel's books are in order.
        """
        if self._current is channel:
            self._current = None


def _names_missing_exchange(error: BrokerUnavailable, exchange: str) -> bool:
    # All publishes that wait on a channel get the error the broker closed it with: only one that names its own exchange
    # knows that it went nowhere.
    return isinstance(error.__cause__, ChannelNotFoundEntity) and f"no exchange '{exchange}' " in str(error)
