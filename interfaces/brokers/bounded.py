"""A time limit that holds even where the client library loses the cancellation it is made of.

`asyncio.timeout` cancels the task it is in. aiormq runs its calls in tasks of its own and, where a cancellation meets
the closing of a channel, raises something else or goes on: the limit has then been used up and nothing ends the wait.
Here the call gets a task of its own, which is left behind when its time is over.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_left_behind: set[asyncio.Task[Any]] = set()


async def bounded(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what `call` returns. Raises `TimeoutError` after `seconds`; the call is then cancelled, but not waited
    for."""
    task = asyncio.create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            _left_behind.add(task)
            task.add_done_callback(_forget)
            task.cancel()
    if not task.done():
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # Looked at, or asyncio would report it: nobody waits for it any more.
