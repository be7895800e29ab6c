"""The counting of a worker, to be taken out and put back in: what is left without it is what a turn costs by itself.

A dozen readings of the clock and a few sums stay in, half a microsecond a turn. Used by `tests.bench.telemetry`.
"""

from typing import Any, Final

from interfaces.metrics import Histogram
from interfaces.telemetry import Telemetry
from worker.stores.pipelining import TickPipeline


def _nothing(*_: Any) -> None:
    pass


COUNTING: Final[dict[tuple[Any, str], Any]] = {
    (Histogram, "observe"): _nothing,
    (Telemetry, "polled"): lambda _, batch: batch,
    (Telemetry, "turn"): lambda _, request, run: run(request),
    (TickPipeline, "_note_sizes"): _nothing,
}
"""What counts, and what stands in its place."""

COUNTED: Final = {place: getattr(*place) for place in COUNTING}


def count(is_counting: bool) -> None:
    """Put it in or take it out."""
    for (owner, name), instead in COUNTING.items():
        setattr(owner, name, COUNTED[owner, name] if is_counting else instead)
