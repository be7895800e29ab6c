"""Markers: the message at the end of a request queue that tells when everything before it is settled.

A generation of queues that takes over may begin with a context only when the one before has ended with it. Whoever
changes the number of shards puts a marker behind the last request of each old queue; whoever consumes that queue comes
to it in order. A marker may come again, and there may be several: all say the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.errors import SwitchboardError
from interfaces.topology import Topology

logger = logging.getLogger(__name__)

MARKER_HEADER = "x-switchboard-marker"
"""Number of the generation that waits for the queue to be passed."""

POLL_SECONDS = 0.02


def marker(queue: str, topology: Topology) -> Outgoing:
    """The marker of an old queue, for the generation of `topology`."""
    headers = {MARKER_HEADER: topology.generation}
    return Outgoing("", queue, b"", Properties(message_id=f"marker-{uuid4()}", delivery_mode=2, headers=headers))


def is_marker(delivery: Delivery) -> bool:
    """Whether this is no request but a marker: it was put into the queue by the queue's name, not by a slot."""
    return delivery.exchange == "" and MARKER_HEADER in (delivery.properties.headers or {})


class Markers:
    """The markers an interface has been given, each on its way to `passed(queue)` and its acknowledgement."""

    def __init__(self, passed: Callable[[str], Awaitable[None]]) -> None:
        self._passed = passed
        self._waiting: set[asyncio.Task[None]] = set()

    def take(self, delivery: Delivery) -> None:
        """Wait for everything delivered before it on its channel, then report its queue as passed. Returns at once."""
        task = asyncio.create_task(self._settle(delivery), name=f"marker of {delivery.channel.queue}")
        self._waiting.add(task)
        task.add_done_callback(self._on_done)

    async def close(self) -> None:
        """Wait for none any more; unacknowledged, they come again elsewhere."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def _settle(self, delivery: Delivery) -> None:
        channel = delivery.channel
        # Asked again and again, as it happens once in the life of a queue: acks need not tell anybody.
        while channel.is_open and next(iter(channel.unsettled), delivery.tag) != delivery.tag:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        if not channel.is_open:
            return
        try:
            await self._passed(channel.queue)
        except SwitchboardError as error:
            # Kept unacknowledged on an open channel, it would stand before every further marker.
            logger.warning("marker of queue %s could not be reported and comes again: %s", channel.queue, error)
            await channel.close()
        else:
            logger.info("queue %s is passed: everything before its marker is settled", channel.queue)
            await channel.ack(delivery)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._waiting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a marker could not be settled; it stays unacknowledged", exc_info=error)
