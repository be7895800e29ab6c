"""Requests taken from the broker and not settled yet: found by their context, and bounded in bytes, not only in number.

A context has one turn at a time, so its id finds the request that is in it, and no context variable has to travel with
the turn (docs/decisions/0001). What waits behind another request of its context waits as it came: decoded, a body takes
many times its bytes. Nothing stops a broker from sending what the prefetch allows, so what has no room is not kept
(docs/decisions/0016). Used by `RabbitMQMessengerInterface`.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic, time

from interfaces.brokers import Channel, Delivery
from interfaces.envelope import Request
from interfaces.errors import MisuseError
from interfaces.messages import has_text_at_most
from interfaces.telemetry import Telemetry

OVERHEAD = 2048
"""Bytes that a delivery takes beside its body: about 800 for itself and its properties, and its place in a lane."""


MAX_SMALL = 512
"""Bytes of a body that stays decoded behind others of its context, if it is nothing but text: that takes 900 bytes more
at most, for which `OVERHEAD` has room. It was decoded to be put into line, and would be once more for its turn."""


@dataclass(slots=True, eq=False)
class Held:
    """One delivery on its way through this process."""

    delivery: Delivery
    size: int
    arrived_at: float
    """By the monotonic clock."""
    request: Request | None = None
    """What it was decoded to, where it is the first of its context, or small."""
    is_started: bool = False


class Taken:
    """Everything taken; of each context the requests in order, the one whose turn it is first.

    :param decode: what makes a request of a delivery that was decoded once before.
    :param max_bytes: bytes that may be held, with `OVERHEAD` for each delivery.
    """

    def __init__(
        self, decode: Callable[[Delivery], Request], max_bytes: int, telemetry: Telemetry | None = None
    ) -> None:
        metrics = (telemetry or Telemetry()).metrics
        self._requests, stages = metrics.requests_total, metrics.stage_seconds
        self._queue_seconds, self._lane_seconds, self._turn_seconds = stages["queue"], stages["lane"], stages["turn"]
        self._decode = decode
        self._max_bytes = max_bytes
        self._lanes: dict[str, deque[Held]] = {}
        self._by_channel: dict[Channel, set[Held]] = {}
        self._bytes_of: Counter[Channel] = Counter()
        self.bytes = 0
        """Bytes held now."""

    def has_any(self, channel: Channel) -> bool:
        """Whether something of a channel is held."""
        return channel in self._by_channel

    def has_unstarted(self, channel: Channel) -> bool:
        """Whether something of a channel is held whose turn has not begun."""
        return any(not held.is_started for held in self._by_channel.get(channel, ()))

    def take(self, delivery: Delivery, channels: int) -> Held | None:
        """Note what has arrived, which counts until it is `settled`; `None` where it has no room.

        That is where the bytes are used up, or its channel's share of them, which is one of `channels`. A channel that
        holds nothing always has room for one, whatever its size: otherwise nothing would go on.
        """
        channel, size = delivery.channel, _size(delivery)
        of_channel = self._by_channel.get(channel)
        if of_channel is None:
            of_channel = self._by_channel[channel] = set()
        elif self.bytes + size > self._max_bytes or self._bytes_of[channel] + size > self._max_bytes / channels:
            return None
        held = Held(delivery, size, monotonic())
        of_channel.add(held)
        self._bytes_of[channel] += size
        self.bytes += size
        self._requests["true" if delivery.redelivered else "false"] += 1
        if (sent_at := delivery.properties.timestamp) is not None:
            self._queue_seconds.observe(max(0.0, time() - sent_at.timestamp()))
        return held

    def line_up(self, held: Held, request: Request) -> None:
        """Put it behind the requests of its context."""
        lane = self._lanes.setdefault(request.ctx_id, deque())
        if not lane or _is_small(request):
            held.request = request
        lane.append(held)

    def start(self, ctx_id: str) -> tuple[Held, Request]:
        """The first of a context, whose turn it is now, with its request."""
        held = self._lanes[ctx_id][0]
        held.is_started = True
        self._lane_seconds.observe(monotonic() - held.arrived_at)
        held.request = request = held.request or self._decode(held.delivery)
        return held, request

    def current(self, ctx_id: Hashable) -> Request:
        """The request whose turn this context is in. Raises `MisuseError` where it is in none."""
        lane = self._lanes.get(str(ctx_id))
        request = lane[0].request if lane and lane[0].is_started else None
        if request is None:
            raise MisuseError(f"context {ctx_id!r} is in no turn: was its id changed by the pipeline?")
        return request

    def __len__(self) -> int:
        """How many contexts have any."""
        return len(self._lanes)

    def acknowledged(self, ctx_id: str) -> None:
        """Note that the request is settled whose turn this context is in."""
        self._turn_seconds.observe(monotonic() - self._lanes[ctx_id][0].arrived_at)

    @property
    def requests(self) -> int:
        """Requests held now."""
        return sum(map(len, self._by_channel.values()))

    def end(self, ctx_id: str, held: Held) -> None:
        """Forget a request whose turn has ended. May be repeated."""
        self.settled(held)
        lane = self._lanes.get(ctx_id)
        if lane and lane[0] is held:
            lane.popleft()
            if not lane:
                del self._lanes[ctx_id]

    def settled(self, held: Held) -> None:
        """Count it no more. May be repeated."""
        channel = held.delivery.channel
        of_channel = self._by_channel.get(channel, set())
        if held in of_channel:
            of_channel.discard(held)
            self._bytes_of[channel] -= held.size
            self.bytes -= held.size
            if not of_channel:
                del self._by_channel[channel], self._bytes_of[channel]


def _is_small(request: Request) -> bool:
    if len(request.delivery.body) > MAX_SMALL or request.update_ctx_misc is not None or request.opened is not None:
        return False
    return has_text_at_most(request.message)


def _size(delivery: Delivery) -> int:
    headers = delivery.properties.headers
    return OVERHEAD + len(delivery.body) + (len(repr(headers)) if headers else 0)
