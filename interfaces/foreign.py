"""Calling code that is not ours: what it raises becomes one kind of error, and its cancellations stay its own.

A library or a bot may raise `CancelledError` although nobody cancelled the task that awaits it (a connection that
closes, a child task of a bot that was cancelled). Let through, it would end that task without a trace. The other way
round it may swallow a cancellation that was asked for: that would never end.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class StrayCancellationError(Exception):
    """The code called was cancelled from within; nobody asked for it here."""


@contextmanager
def stray_cancellations_caught() -> Iterator[None]:
    """Raise `StrayCancellationError` for a `CancelledError` that was not asked of the current task.

    One that was asked for and did not come through is raised at the end: the AMQP client loses some (an
    `asyncio.wait_for` that ends in the same tick, a channel that is being closed), and a task that was cancelled once
    would then run for ever.
    """
    task = asyncio.current_task()
    asked_before = task.cancelling() if task else 0
    try:
        yield
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise StrayCancellationError("cancelled from within") from error
    except Exception as error:
        if task is not None and task.cancelling() > asked_before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > asked_before:
        raise asyncio.CancelledError
