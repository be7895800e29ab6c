"""Deliveries on their way from the consumers to the lanes: noted, decoded, refused, or not kept where it is too much.

What has no room is dropped, and all that comes after it on its channel: unacknowledged, it comes again, in order, once
the channel is closed. That is done when what was kept of it is settled. Used by `RabbitMQMessengerInterface`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from interfaces.brokers import Channel, Delivery
from interfaces.envelope import Request
from interfaces.errors import RequestRejected
from interfaces.markers import Markers, is_marker
from interfaces.returnable import Returnable
from interfaces.settling import Settler
from interfaces.shards import Shards
from interfaces.taken import Held, Taken

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Arrived:
    """What is known of a channel that has delivered something."""

    returnable: Returnable
    is_full: bool = False


class Arrivals:
    """What was delivered and is in no lane yet.

    :param taken: holds what arrives until it is settled.
    :param decode: makes a request of a delivery, or raises `RequestRejected`.
    :param shards: whose deliveries these are.
    :param prefetch: that of a queue's consumers.
    """

    def __init__(
        self,
        taken: Taken,
        decode: Callable[[Delivery], Request],
        settler: Settler,
        markers: Markers,
        shards: Callable[[], Shards],
        prefetch: Callable[[str], int],
    ) -> None:
        self._taken = taken
        self._decode = decode
        self._settler = settler
        self._markers = markers
        self._shards = shards
        self._prefetch = prefetch
        self._arrived: deque[Held] = deque()
        self._is_there = asyncio.Event()
        self._channels: dict[Channel, _Arrived] = {}

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery from its consumer."""
        channel = delivery.channel
        arrived = self._channels.get(channel) or self._begun(channel)
        arrived.returnable.delivered(is_repeated=delivery.redelivered)
        shards = self._shards()
        if arrived.is_full or not shards.may_start(channel):
            return
        held = self._taken.take(delivery, max(1, len(shards)))
        if held is None:
            arrived.is_full = True
            logger.warning("no room for what %s holds: %d bytes are held, the rest waits", channel.queue, self.bytes)
            self.make_room(channel)
            return
        self._arrived.append(held)
        self.wake()

    @property
    def bytes(self) -> int:
        """Bytes of requests held now."""
        return self._taken.bytes

    def make_room(self, channel: Channel) -> None:
        """Have a queue from its head again, where its channel was too full and all that was kept of it is begun."""
        arrived = self._channels.get(channel)
        if arrived is not None and arrived.is_full and not self._taken.has_unstarted(channel):
            self._shards().reopen(channel)

    def wake(self) -> None:
        """End the wait for a delivery."""
        self._is_there.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is a delivery, when woken, or when the time is over."""
        if not self._arrived:
            self._is_there.clear()
            over = asyncio.get_running_loop().call_later(seconds, self._is_there.set)
            try:
                await self._is_there.wait()
            finally:
                over.cancel()

    def next(self) -> Request | None:
        """The next request, lined up behind those of its context; `None` where there is none now."""
        while self._arrived:
            held = self._arrived.popleft()
            request = self._read(held)
            if request is not None:
                self._taken.line_up(held, request)
                return request
        return None

    def acknowledged(self, request: Request) -> None:
        """Note that a request is settled. The broker may not have noted it yet."""
        self._channels[request.delivery.channel].returnable.acknowledged(request.ctx_id)
        self._taken.acknowledged(request.ctx_id)

    def returnable(self, request: Request) -> int:
        """How many requests of this one's context are acknowledged and may be delivered again all the same."""
        return self._channels[request.delivery.channel].returnable.of(request.ctx_id)

    def _begun(self, channel: Channel) -> "_Arrived":
        """Note a channel at its first delivery, and forget those that are closed and have nothing here."""
        for known in [known for known in self._channels if not known.is_open and not self._taken.has_any(known)]:
            del self._channels[known]
        arrived = self._channels[channel] = _Arrived(Returnable(self._prefetch(channel.queue)))
        return arrived

    def _read(self, held: Held) -> Request | None:
        delivery = held.delivery
        if not self._shards().may_start(delivery.channel):
            self._taken.settled(held)  # It comes again, here or elsewhere; started now, it could only run twice.
            return None
        if is_marker(delivery):
            self._settled(held)
            self._markers.take(delivery)
            return None
        try:
            return self._decode(delivery)
        except RequestRejected as rejected:
            rejecting = self._settler.reject_aside(delivery, rejected)
            rejecting.add_done_callback(lambda _: self._settled(held))
            return None

    def _settled(self, held: Held) -> None:
        self._taken.settled(held)
        self.make_room(held.delivery.channel)
