"""A plain AMQP client for tests: sees every message on a queue with exactly the bytes and properties it has.

Nothing here is the product's own code: replies that are repeated stay visible, absent properties stay absent.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiormq
from aiormq.abc import AbstractChannel
from pamqp import commands

CLOSE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as it was on a queue."""

    body: bytes
    properties: commands.Basic.Properties
    routing_key: str


class Wire:
    """One channel."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def listen(self, exchange: str, routing_key: str = "#") -> str:
        """A new queue that gets what is published to `exchange` from now on; it goes with the connection."""
        queue = await self.new_queue()
        await self.channel.queue_bind(queue, exchange, routing_key)
        return queue

    async def new_queue(self, name: str = "") -> str:
        """A new queue of this connection alone, named by the server where no name is given."""
        declared = await self.channel.queue_declare(name, exclusive=True)
        assert declared.queue is not None
        return declared.queue

    async def count(self, queue: str) -> int:
        """Messages ready on a queue."""
        declared = await self.channel.queue_declare(queue, passive=True)
        return declared.message_count or 0

    async def take_all(self, queue: str) -> list[Seen]:
        """Take every message that is on a queue now."""
        taken: list[Seen] = []
        while True:
            message = await self.channel.basic_get(queue, no_ack=True)
            if isinstance(message.delivery, commands.Basic.GetEmpty):
                return taken
            taken.append(Seen(message.body, message.header.properties, message.routing_key or ""))


@asynccontextmanager
async def open_wire(url: str) -> AsyncIterator[Wire]:
    """Connect, and disconnect afterwards."""
    connection = await aiormq.connect(url)
    try:
        yield Wire(await connection.channel(publisher_confirms=True))
    finally:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
