"""What an interface on request queues tells of its own work: to the other workers, to operators, and as gauges.

Read only: nothing here changes what it tells of. A base of `RabbitMQMessengerInterface`, which fills in the parts.
"""

from interfaces.lanes import Lanes
from interfaces.metrics import Metrics
from interfaces.settling import Settler
from interfaces.shards import Shards
from interfaces.taken import Taken


class Observed:
    """Answers from the parts of the interface; empty until it is connected."""

    _shards: Shards | None
    _lanes: Lanes[None]
    _taken: Taken
    _settler: Settler

    @property
    def consumed(self) -> list[str]:
        """Request queues this interface has a consumer on, be it the active one or one that waits."""
        return self._shards.consumed if self._shards is not None else []

    @property
    def delivering(self) -> set[str]:
        """Request queues that have delivered something here, so that this consumer is known to be the active one."""
        return self._shards.delivering if self._shards is not None else set()

    @property
    def unsettled(self) -> dict[str, list[float]]:
        """By request queue: event loop time of each delivery not acknowledged yet, the oldest first."""
        return self._shards.unsettled if self._shards is not None else {}

    @property
    def settled(self) -> int:
        """Requests answered or rejected, and acknowledged, since the interface was made."""
        return self._settler.settled

    def gauge(self, metrics: Metrics) -> None:
        """Set the gauges that are the interface's to what they are now."""
        if self._shards is None:
            return
        metrics.consumer_up = int(self._shards.is_complete)
        active, all_open = len(self._shards.delivering), len(self._shards.consumed)
        metrics.consumers["active"], metrics.consumers["waiting"] = active, all_open - active
        metrics.lanes = len(self._lanes)
        metrics.in_flight_requests, metrics.in_flight_bytes = self._taken.requests, self._taken.bytes
