"""Chatsky by itself in a process, with its own Redis storage, as its users run it: for comparing with.

`python -m tests.services.chatsky_alone REDIS_URL` runs the counting pipeline, whose misc counts its turns. It takes one
order per line of standard input (`Order`, as JSON) and answers each with one line (`Done`). Nothing of this project is
used, `nest_asyncio` is applied as importing Chatsky does it, and a message that raises is counted and gone.
"""

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from tests.services.processes import ROOT


@dataclass(frozen=True, slots=True)
class Order:
    """Messages to run in one context, one after the other or all at once."""

    ctx_id: str
    texts: Sequence[str]
    at_once: bool = False


@dataclass(slots=True)
class Done:
    """What became of an order."""

    seconds: list[float] = field(default_factory=list)
    """How long each turn took."""
    errors: dict[str, int] = field(default_factory=dict)
    """What was raised instead of an answer, by type and text, how often."""


class ChatskyProcess:
    """One such process: `run` gives it an order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, redis_url: str) -> Self:
        """Start one, and return when it takes orders."""
        command = [sys.executable, "-m", __name__, redis_url]
        pipe = asyncio.subprocess.PIPE
        process = cls(
            await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, limit=1024 * 1024)
        )
        await process.run(Order("", ()))
        return process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, order: Order) -> Done:
        """Have it carry out an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the process has ended"
        return Done(**json.loads(line))

    async def stop(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


async def _serve(redis_url: str) -> None:
    from chatsky import Message
    from chatsky.context_storages import context_storage_factory

    from tests.bots.chatsky_counting import pipeline

    logging.disable(logging.CRITICAL)
    pipeline.context_storage = context_storage_factory(redis_url)
    await pipeline.context_storage.connect()

    async def turn(ctx_id: str, text: str, done: Done, errors: Counter[str]) -> None:
        began = time.perf_counter()
        try:
            await pipeline._run_pipeline(Message(text), ctx_id)
        except Exception as error:  # noqa: BLE001 - whatever a message ends with is counted
            errors[f"{type(error).__name__}: {error}"[:100]] += 1
        done.seconds.append(time.perf_counter() - began)

    while line := await asyncio.to_thread(sys.stdin.readline):
        order, done, errors = Order(**json.loads(line)), Done(), Counter[str]()
        turns = [turn(order.ctx_id, text, done, errors) for text in order.texts]
        if order.at_once:
            await asyncio.gather(*turns)
        else:
            for one in turns:
                await one
        done.errors = dict(errors)
        sys.stdout.write(json.dumps(asdict(done)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
