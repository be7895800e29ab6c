"""Switchboard with all that it counts taken out, to be measured beside Switchboard: what is left is what a turn costs.

Run as `python -m tests.bench.contenders.untold run APP`. A few readings of the clock and a few sums stay in.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from interfaces.metrics import Histogram
from interfaces.telemetry import Telemetry
from worker.bot_runs import BotRuns
from worker.cli import main
from worker.health import Pulse
from worker.stores.pipelining import TickPipeline


def _nothing(*_: Any) -> None:
    pass


def _unchanged(_: Any, call: Awaitable[Any]) -> Awaitable[Any]:
    return call


async def _no_pulse(_: Any) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    for owner, name, instead in (
        (Histogram, "observe", _nothing),
        (Histogram, "timed", _unchanged),
        (Telemetry, "polled", _unchanged),
        (Telemetry, "turn", lambda _, request, run: run(request)),
        (BotRuns, "run", BotRuns._run),
        (TickPipeline, "_note_sizes", _nothing),
        (Pulse, "_run", _no_pulse),
    ):
        setattr(owner, name, instead)
    main()
