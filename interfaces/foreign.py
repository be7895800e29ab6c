"""Calling code that is not ours: what it raises becomes one kind of error, and its cancellations stay its own.

A library or a bot may raise `CancelledError` although nobody cancelled the task that awaits it (a connection that
closes, a child task of a bot that was cancelled). Let through, it would end that task without a trace.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class StrayCancellationError(Exception):
    """The code called was cancelled from within; nobody asked for it here."""


@contextmanager
def stray_cancellations_caught() -> Iterator[None]:
    """Raise `StrayCancellationError` for a `CancelledError` that was not asked of the current task."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StrayCancellationError("cancelled from within") from error
