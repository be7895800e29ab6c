"""What one worker tells of itself while it works: handed to every part that has something to count or to trace.

Made once for a worker, and by each part for itself where it gets none, so that no part ever asks whether there is one.
Never a global: two workers of one process, or two tests, share nothing.
"""

from collections.abc import Awaitable, Callable, Sized
from typing import TYPE_CHECKING, TypeVar

from interfaces.current_turn import CURRENT
from interfaces.metrics import Metrics

if TYPE_CHECKING:
    from interfaces.envelope import Request

Batch = TypeVar("Batch", bound=Sized)


class Telemetry:
    """Metrics of a worker."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.servers: dict[str, Callable[[], bool]] = {}
        """By name, whether a server could be reached when it was tried last. Whoever connects to it says so here."""

    def turn(self, request: "Request", run: "Callable[[Request], Awaitable[None]]") -> Awaitable[None]:
        """`run(request)`, known to the log as the turn of this request. Called in the task that the turn is."""
        CURRENT.set(request)
        return run(request)

    def polled(self, batch: Batch) -> Batch:
        """Count what a poll has given, which may be nothing."""
        if batch:
            self.metrics.batch_size["poll"].observe(len(batch))
        return batch
