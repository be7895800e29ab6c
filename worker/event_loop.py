"""Which event loop a worker process runs on: uvloop's where it is installed (extra `fast`), asyncio's own otherwise."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; `None` stands for asyncio's default."""
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None
