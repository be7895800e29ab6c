"""Calling code that is not ours: what it raises becomes one kind of error, and its cancellations stay its own.

A library or a bot may raise `CancelledError` although nobody cancelled the task that awaits it (a connection that
closes, a child task of a bot that was cancelled). Let through, it would end that task without a trace. The other way
round it may swallow a cancellation that was asked for: that would never end.
"""

import asyncio
from types import TracebackType


class StrayCancellationError(Exception):
    """The code called was cancelled from within; nobody asked for it here."""


class stray_cancellations_caught:  # noqa: N801 - used as a statement, and no generator: it is in every publish and turn
    """Raise `StrayCancellationError` for a `CancelledError` that was not asked of the current task.

    One that was asked for and did not come through is raised at the end: the AMQP client loses some (an
    `asyncio.wait_for` that ends in the same tick, a channel that is being closed), and a task that was cancelled once
    would then run for ever.
    """

    __slots__ = ("_asked_before", "_task")

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._asked_before = self._task.cancelling() if self._task else 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asked = self._task.cancelling() if self._task else 0
        if isinstance(error, asyncio.CancelledError):
            if self._task is not None and not asked:
                raise StrayCancellationError("cancelled from within") from error
        elif (error is None or isinstance(error, Exception)) and asked > self._asked_before:
            raise asyncio.CancelledError from error
