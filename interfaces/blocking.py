"""One blocking call in a thread that nobody has to wait for.

`asyncio.to_thread` will not do for input: its threads are joined when the loop closes and when the process ends, so a
call that waits for a user would keep a cancelled program alive until that user types something. Messenger interfaces
call their plain `_request` and `_respond` through this.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from interfaces.bot_signals import BotSignal

T = TypeVar("T")


async def run_in_daemon_thread(
    function: Callable[..., T], *args: object, started: Callable[[threading.Thread], None] = lambda _: None
) -> T:
    """Return what `function(*args)` returns, or raise what it raises, with the caller's context variables.

    Cancelled, it returns at once; the thread, which `started` was told, goes on, its outcome is dropped, and the
    process may end before it does.
    """
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()
    results: list[T] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def call() -> None:
        try:
            results.append(context.run(function, *args))
        except (Exception, KeyboardInterrupt, SystemExit, BotSignal) as error:  # noqa: BLE001 - raised again below, in the caller
            errors.append(error)
        finally:
            # Raised where the loop was closed meanwhile: then nobody waits for this any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finished.set)

    name = f"blocking {getattr(function, '__qualname__', function)}"
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    started(thread)
    await finished.wait()
    if errors:
        raise errors[0]
    return results[0]


async def call_sync_or_async(function: Callable[..., Any], *args: object) -> Any:
    """What `function(*args)` gives, be it a coroutine function or a plain one, which then runs in a thread."""
    result = function(*args) if inspect.iscoroutinefunction(function) else await run_in_daemon_thread(function, *args)
    return await result if inspect.isawaitable(result) else result
