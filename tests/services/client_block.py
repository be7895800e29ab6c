"""Runs a Python block of the documentation that uses a client at its top level:

    python -m tests.services.client_block FILE

One that waits for replies for ever is ended once it has printed one. Until then a user of its interface keeps talking.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import sys
import types
from pathlib import Path

from interfaces import BrokerClient

SECONDS = 40
PAUSE = 0.2


class Telling(io.StringIO):
    """Standard output that knows whether anything was printed."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = asyncio.Event()

    def write(self, text: str) -> int:
        self.printed.set()
        return sys.stderr.write(text)


async def run(source: str) -> None:
    """Run the block. Raises what it raises, and `TimeoutError`."""
    code = compile(source, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = types.FunctionType(code, {"__name__": "__main__"})()
    if not inspect.iscoroutine(result):
        return
    sys.stdout = telling = Telling()
    async with asyncio.timeout(SECONDS):
        block = asyncio.create_task(result)
        if "async for" not in source:
            await block
            return
        async with BrokerClient(os.environ["SWITCHBOARD_AMQP_URL"], interface="web") as client:
            while not block.done() and not telling.printed.is_set():
                await client.send("Is anybody there?", "reader")
                await asyncio.wait({block}, timeout=PAUSE)
        block.cancel()  # where it has ended, by an error perhaps, this does nothing
        with contextlib.suppress(asyncio.CancelledError):
            await block


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]).read_text()))
