"""How a long-running command ends: on which signals, and without waiting for threads that nobody can stop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from interfaces.errors import ExitCode
from worker.event_loop import event_loop_factory

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

CLOSING_SECONDS: Final = 10.0
"""For settling and closing after the drain timeout or a second signal. Connections give up closing after 3 s each."""


def until_ended(running: Coroutine[Any, Any, T]) -> T:
    """Run to the end in an event loop of its own; signals that come after that change nothing."""
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            return runner.run(running)
    finally:
        # The loop has given the signals their default effect back: one more, and the exit code would be the signal's.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def end_on_signals(
    stop: Callable[[], None], task: "asyncio.Task[None]", drain_timeout: float, running: str
) -> asyncio.Event:
    """Call `stop` on a first signal and cancel `task` on a second. The event is set when it should long have ended.

    :param running: what has `drain_timeout` seconds to come to its end.
    """
    loop = asyncio.get_running_loop()
    overdue = asyncio.Event()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            logger.info("%s: stopping, %s have %g s", number.name, running, drain_timeout)
            stop()
            loop.call_later(drain_timeout + CLOSING_SECONDS, overdue.set)
        elif len(received) == 2:
            logger.info("%s again: stopping at once", number.name)
            task.cancel()
            loop.call_later(CLOSING_SECONDS, overdue.set)
        else:
            overdue.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return overdue


def leave(code: ExitCode) -> NoReturn:
    """End the process without waiting for threads, as an ordinary exit would."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
