"""Bots whose user can end the process they run in, in every way a request does that; otherwise they count messages.

`answer` is a coroutine, `answer_plainly` a plain function; `tests.bots.chatsky_deadly` is the same as a Chatsky
pipeline. Run by the worker processes of
the integration tests.
"""

import asyncio
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from interfaces.context import Context

EXIT_CODE = 70
MEGABYTE = 2**20
TURN_SECONDS = 0.03
"""Long enough for turns of other contexts to run when the process ends."""


def leave() -> NoReturn:
    """End without a word."""
    os._exit(EXIT_CODE)


def violate_memory() -> None:
    """Write where nothing is, as a faulty extension module does."""
    ctypes.memset(0, 1, 1)


def exhaust_memory() -> None:
    """Take all the memory there is, and end as the kernel's out-of-memory killer ends a process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 64 * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    held = []
    try:
        while True:
            held.append(bytearray(MEGABYTE))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def block() -> NoReturn:
    """Never give the event loop back."""
    while True:
        time.sleep(3600)


DEATHS: dict[str, Callable[[], object]] = {
    death.__name__: death for death in (leave, violate_memory, exhaust_memory, block)
}


async def answer(ctx: Context) -> str:
    """Die where the text says so, or reply with the number of turns applied so far and the text."""
    await asyncio.sleep(TURN_SECONDS)
    return _answer(ctx)


def answer_plainly(ctx: Context) -> str:
    """The same in a thread."""
    time.sleep(TURN_SECONDS)
    return _answer(ctx)


def _answer(ctx: Context) -> str:
    text = ctx.last_request.text or ""
    if text in DEATHS:
        DEATHS[text]()
    ctx.misc["applied"] = [*ctx.misc.get("applied", []), text]
    return f"{len(ctx.misc['applied'])}: {text}"
