"""Requests taken from the broker and not settled yet: found by their context, and bounded in bytes, not only in number.

A context has one turn at a time, so its id finds the request that is in it, and no context variable has to travel with
the turn (docs/decisions/0001). What waits behind another request of its context waits as it came: decoded, a body takes
many times its bytes. Over the bound, what is not started is let go of, channel by channel, because nothing else stops a
broker from sending what the prefetch allows (docs/decisions/0016). Used by `RabbitMQMessengerInterface`.
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from interfaces.brokers import Channel, Delivery
from interfaces.envelope import Request
from interfaces.errors import MisuseError

OVERHEAD = 2048
"""Bytes that a delivery takes beside its body: about 800 for itself and its properties, and its place in a lane."""


@dataclass(slots=True, eq=False)
class Held:
    """One delivery on its way through this process."""

    delivery: Delivery | None
    """`None` once it was let go of: it comes again, here or elsewhere."""
    channel: Channel
    size: int
    request: Request | None = None
    """What it was decoded to, where it is the first of its context."""
    is_started: bool = False


class Taken:
    """Everything taken; of each context the requests in order, the one whose turn it is first.

    :param decode: what makes a request of a delivery that was decoded once before.
    :param max_bytes: bytes that may be held, with `OVERHEAD` for each delivery.
    """

    def __init__(self, decode: Callable[[Delivery], Request], max_bytes: int) -> None:
        self._decode = decode
        self._max_bytes = max_bytes
        self._lanes: dict[str, deque[Held]] = {}
        self._by_channel: dict[Channel, set[Held]] = {}
        self.bytes = 0
        """Bytes held now."""

    @property
    def is_over(self) -> bool:
        """Whether more is held than may be."""
        return self.bytes > self._max_bytes

    def take(self, delivery: Delivery) -> Held:
        """Note what has arrived. It counts until `settled` or `let_go_of`."""
        headers = delivery.properties.headers
        size = OVERHEAD + len(delivery.body) + (len(repr(headers)) if headers else 0)
        held = Held(delivery, delivery.channel, size)
        self._by_channel.setdefault(held.channel, set()).add(held)
        self.bytes += size
        return held

    def line_up(self, held: Held, request: Request) -> None:
        """Put it behind the requests of its context."""
        lane = self._lanes.setdefault(request.ctx_id, deque())
        held.request = None if lane else request
        lane.append(held)

    def start(self, ctx_id: str) -> Held:
        """The first of a context, whose turn it is now, with its request; without one where it was let go of."""
        held = self._lanes[ctx_id][0]
        if held.delivery is not None:
            held.is_started = True
            held.request = held.request or self._decode(held.delivery)
        return held

    def current(self, ctx_id: Hashable) -> Request:
        """The request whose turn this context is in. Raises `MisuseError` where it is in none."""
        lane = self._lanes.get(str(ctx_id))
        request = lane[0].request if lane else None
        if request is None:
            raise MisuseError(f"context {ctx_id!r} is in no turn: was its id changed by the pipeline?")
        return request

    def __len__(self) -> int:
        """How many contexts have any."""
        return len(self._lanes)

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
        of_channel = self._by_channel.get(held.channel, set())
        if held in of_channel:
            of_channel.discard(held)
            self.bytes -= held.size
            if not of_channel:
                del self._by_channel[held.channel]

    def heaviest(self, may_go: Callable[[Channel], bool]) -> Channel | None:
        """The channel with the most bytes, of those that may be let go of and hold more than a single delivery."""
        several = [channel for channel, held in self._by_channel.items() if len(held) > 1 and may_go(channel)]
        return max(several, key=self._bytes_of, default=None)

    def let_go_of(self, channel: Channel, channels: int) -> int:
        """Drop what is not started of a channel.

        How many deliveries of that size fit into its share of the bytes, one of `channels`: at most half as many as
        there were, so that doing it again and again comes to an end, and at least one.
        """
        held_there = self._by_channel[channel]
        fitting = int(self._max_bytes / channels / (self._bytes_of(channel) / len(held_there)))
        fitting = min(fitting, len(held_there) // 2)
        for held in [held for held in held_there if not held.is_started]:
            self.settled(held)
            held.delivery = held.request = None
        return max(1, fitting)

    def _bytes_of(self, channel: Channel) -> int:
        return sum(held.size for held in self._by_channel[channel])
