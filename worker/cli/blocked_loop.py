"""Ends a worker whose event loop the bot blocks: nothing in it can run then, not even what would notice that.

Plain functions of a Chatsky pipeline, and coroutines that never await, run in the loop. Their requests count as having
ended the process, so one that always does this is isolated like one that crashes it (docs/decisions/0014).
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import Final

from interfaces.errors import ExitCode
from worker.cli.ending import leave

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
DEEPEST: Final = 30
"""Frames of the loop's thread in the log."""


def end_where_blocked(seconds: float) -> None:
    """Watch the running loop from a thread; where it stands still for `seconds`, end the process with `STUCK`."""
    watch = _Watch(asyncio.get_running_loop(), seconds)
    watch.beat()
    threading.Thread(target=watch.run, name="watch the event loop", daemon=True).start()


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._seconds = seconds
        self._missed = 0

    def beat(self) -> None:
        """Called by the loop while it turns."""
        self._missed = 0
        self._loop.call_later(LOOK_SECONDS, self.beat)

    def run(self) -> None:
        # Looks are counted rather than time: a process that was stopped, or a machine that slept, missed no look.
        while not self._loop.is_closed():
            time.sleep(LOOK_SECONDS)
            self._missed += 1
            if self._missed * LOOK_SECONDS > self._seconds + LOOK_SECONDS:
                self._end()

    def _end(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to its frames
        place = "".join(traceback.format_stack(frame)[-DEEPEST:])
        logger.critical(
            "the event loop has stood still for %g s, the process ends; the bot blocks it at\n%s", self._seconds, place
        )
        leave(ExitCode.STUCK)
