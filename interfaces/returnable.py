"""What a broker may deliver again although it was acknowledged: an acknowledgement that is sent is not yet noted.

A connection can be dead for as long as a heartbeat takes to notice it, and all that time turns are committed and
acknowledged into it. The replies to all of them must be found when they come again. The broker's own count tells which
cannot: it delivers no more than the prefetch beyond what it has noted, and a quorum queue notes in its replicated log
(docs/decisions/0016).
"""

from collections import Counter, deque


class Returnable:
    """One channel's acknowledged requests that may be delivered again, counted by context.

    :param prefetch: deliveries that the broker lets be unacknowledged on the channel, or more.
    """

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._delivered = 0
        self._repeated = 0
        self._acknowledged: deque[tuple[int, str]] = deque()
        self._by_context: Counter[str] = Counter()

    def delivered(self, *, is_repeated: bool) -> None:
        """Count a delivery."""
        self._delivered += 1
        # A queue that loses sight of the channel for a moment takes back what it delivered and delivers it once more:
        # that one would be counted twice, and it is not to be told from one that another channel had before.
        self._repeated += is_repeated
        noted = self._delivered - self._repeated - self._prefetch
        while self._acknowledged and self._acknowledged[0][0] <= noted:
            ctx_id = self._acknowledged.popleft()[1]
            self._by_context[ctx_id] -= 1
            if not self._by_context[ctx_id]:
                del self._by_context[ctx_id]

    def acknowledged(self, ctx_id: str) -> None:
        """Note that a request was acknowledged."""
        # No more acknowledgements than deliveries were sent up to this one. How many fewer is not asked: those of one
        # tick of the event loop leave in another order than they were made in.
        self._acknowledged.append((self._delivered, ctx_id))
        self._by_context[ctx_id] += 1

    def of(self, ctx_id: str) -> int:
        """How many of this context's requests may be delivered again."""
        return self._by_context[ctx_id]
