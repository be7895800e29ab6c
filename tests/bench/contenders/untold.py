"""Switchboard with its counting taken out: for all of a run, or by turns with it, to see in one process what it costs.

Run as `python -m tests.bench.contenders.untold run APP`. With `BENCH_PHASES` naming a file, counting is put in and
taken out after every `PHASE` turns, and the processor time of each phase is written there at the end. Without, it stays
out. A few readings of the clock and a few sums are in either way.
"""

import json
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from interfaces.metrics import Histogram
from interfaces.settling import Settler
from interfaces.telemetry import Telemetry
from worker.cli import main
from worker.stores.pipelining import TickPipeline

PHASE: Final = 500
"""Turns: a tenth of a second or so, in which the rest of the machine hardly changes."""


def _nothing(*_: Any) -> None:
    pass


def _unchanged(_: Any, call: Awaitable[Any]) -> Awaitable[Any]:
    return call


COUNTING: Final[dict[tuple[Any, str], Any]] = {
    (Histogram, "observe"): _nothing,
    (Telemetry, "polled"): _unchanged,
    (Telemetry, "turn"): lambda _, request, run: run(request),
    (TickPipeline, "_note_sizes"): _nothing,
}
"""What counts, and what stands in its place."""

COUNTED: Final = {place: getattr(*place) for place in COUNTING}


def count(is_counting: bool) -> None:
    """Put it in or take it out."""
    for (owner, name), instead in COUNTING.items():
        setattr(owner, name, COUNTED[owner, name] if is_counting else instead)


class Phases:
    """Puts counting in and takes it out as turns are settled."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """Processor time of each phase, the first without counting, then with and without by turns."""
        self._settled = 0
        self._began = 0.0

    def settled(self) -> None:
        """One more turn."""
        if self._settled % PHASE == 0:
            now = time.process_time()
            if self._settled:
                self.seconds.append(now - self._began)
            self._began = now
            count(len(self.seconds) % 2 == 1)
        self._settled += 1


def watched(phases: Phases) -> None:
    """Have every answer noted."""
    answer = Settler.answer

    async def noted(*args: Any, **more: Any) -> None:
        await answer(*args, **more)
        phases.settled()

    Settler.answer = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    count(False)
    phases, file = Phases(), os.environ.get("BENCH_PHASES")
    if file is not None:
        watched(phases)
    try:
        main()
    finally:
        if file is not None:
            Path(file).write_text(json.dumps(phases.seconds))
