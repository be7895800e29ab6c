"""What one worker tells of itself while it works: handed to every part that has something to count or to trace.

Made once for a worker, and by each part for itself where it gets none, so that no part ever asks whether there is one.
Never a global: two workers of one process, or two tests, share nothing.
"""

from collections.abc import Callable, Sized
from typing import TypeVar

from interfaces.metrics import Metrics

Batch = TypeVar("Batch", bound=Sized)


class Telemetry:
    """Metrics of a worker."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.servers: dict[str, Callable[[], bool]] = {}
        """By name, whether a server could be reached when it was tried last. Whoever connects to it says so here."""

    def polled(self, batch: Batch) -> Batch:
        """Count what a poll has given, which may be nothing."""
        if batch:
            self.metrics.batch_size["poll"].observe(len(batch))
        return batch
