"""Tasks that begin at once, where Python can do that: without a tick of the event loop before their first step.

Used by lanes and by runs of the bot.
"""

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def begin_task(
    coroutine: Coroutine[Any, Any, T], name: str, context: Context | None = None, *, at_once: bool = True
) -> "asyncio.Task[T]":
    """A task in `context`, by default a copy of this one. Begun `at_once`, it is at its first wait when this returns,
    or over.

    Before Python 3.12 no task can do that: it begins with the next tick.
    """
    loop = asyncio.get_running_loop()
    if at_once and sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, name=name, context=context, eager_start=True)
    return loop.create_task(coroutine, name=name, context=context)
