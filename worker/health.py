"""Whether a worker is live and ready: written by its event loop four times a second, read from any thread.

Live: the event loop turns. Ready: it takes requests, and can finish them. A server that is away makes a worker unready
and never dead, because a new process would find it away too. `Worker` runs the pulse; the probes of
`worker.health_server` read what it leaves.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from interfaces.errors import SettingsInvalid
from interfaces.telemetry import Telemetry

logger = logging.getLogger(__name__)

PULSE_SECONDS: Final = 0.25

STALE_SECONDS: Final = 10.0
"""An event loop that has not turned for this long is no longer live. A bot that computes for seconds in the loop is bad
for all others, but restarting its worker would be worse."""


class Answer(NamedTuple):
    """What a probe is told: the verdict, and what it rests on."""

    is_well: bool
    why: Mapping[str, object]


class Health:
    """The state of one worker as it was at the last pulse."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._checks: Mapping[str, bool] = {"started": False}

    def note(self, checks: Mapping[str, bool]) -> None:
        """The event loop has turned, and this is what must be true for being ready."""
        self._turned_at = self._clock()
        self._checks = checks

    def live(self) -> Answer:
        """Whether the event loop turns."""
        age = self._clock() - self._turned_at
        is_live = age < STALE_SECONDS
        status = "live" if is_live else "stuck"
        return Answer(is_live, {"status": status, "seconds_since_the_loop_turned": round(age, 3)})

    def ready(self) -> Answer:
        """Whether it takes requests and can finish them."""
        is_ready = self.live().is_well and all(self._checks.values())
        return Answer(is_ready, {"status": "ready" if is_ready else "unready", **self._checks})


class Pulse:
    """Measures the event loop's lag and brings health, gauges and the health file up to now, until cancelled.

    :param look: sets the gauges, and gives what must be true for being ready.
    :param file: touched at every pulse.
    """

    def __init__(
        self, telemetry: Telemetry, health: Health, look: Callable[[], Mapping[str, bool]], file: Path | None = None
    ) -> None:
        self._metrics = telemetry.metrics
        self._health = health
        self._look = look
        self._file = file

    def start(self) -> "asyncio.Task[None]":
        """Begin. Raises `SettingsInvalid` where the file cannot be touched."""
        if self._file is not None:
            try:
                self._file.touch()
            except OSError as error:
                raise SettingsInvalid(f"SWITCHBOARD_HEALTH_FILE: {error}") from error
        return asyncio.create_task(self._run(), name="pulse")

    async def _run(self) -> None:
        while True:
            due = monotonic() + PULSE_SECONDS
            self._beat()
            await asyncio.sleep(due - monotonic())
            self._metrics.event_loop_lag_seconds.observe(max(0.0, monotonic() - due))

    def _beat(self) -> None:
        self._health.note(self._look())
        self._metrics.ready = int(self._health.ready().is_well)
        if self._file is not None:
            try:
                self._file.touch()
            except OSError as error:
                logger.warning("the health file is not touched: %s", error)
                self._file = None
