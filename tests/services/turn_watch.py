"""Watches Redis as a bystander: which worker process started which turn, and whether it came to commit it.

It reads `MONITOR`, so neither the worker nor the bot takes part, and nothing that happened between two looks is missed.
For tests that kill workers and must show that turns were running in them.
"""

import asyncio
import re
from collections import defaultdict
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from uuid import uuid4

from redis.asyncio import Redis

from worker.stores.redis import COMMIT, LOAD

LOADED, COMMITTED = LOAD.sha.decode(), COMMIT.sha.decode()
CALL = re.compile(
    rf"EVALSHA (?P<script>{LOADED}|{COMMITTED}) 1 (?P<namespace>\S+?):ctx:\{{(?P<ctx_id>[^{{}}]*)\}} "
    r"(?P<request>\S+) \S+ (?P<attempt>\S+)"
)


class TurnWatch:
    """The turns of one namespace: `async with TurnWatch(redis_url, namespace) as watch`."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._client = Redis.from_url(redis_url)
        self._namespace = namespace
        self._started: defaultdict[str, set[str]] = defaultdict(set)
        self._running: dict[str, int] = {}
        self._committed: set[str] = set()
        self._starts = asyncio.Semaphore(0)
        self._word = uuid4().hex
        self._read_so_far = asyncio.Event()
        self._opened = AsyncExitStack()
        self._reading: asyncio.Task[None] | None = None

    @property
    def interrupted(self) -> set[str]:
        """Requests whose turn one process had started and not committed, and another one started again."""
        return {request for request, processes in self._started.items() if len(processes) > 1}

    async def next_start(self) -> None:
        """Wait for the next turn that is started, the first one being the first since the watch began."""
        await self._starts.acquire()

    async def running(self) -> set[int]:
        """The ports that Redis was asked from for turns that are not committed by now."""
        await self._catch_up()
        return set(self._running.values())

    async def __aenter__(self) -> Self:
        monitor = await self._opened.enter_async_context(self._client.monitor())

        async def read() -> None:
            async for event in monitor.listen():
                self._note(event["command"], int(event["client_port"] or 0))

        self._reading = asyncio.create_task(read(), name="watch turns")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reading is not None
        if self._reading.done():
            self._reading.result()
        await self._catch_up()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._opened.aclose()
        await self._client.aclose()

    async def _catch_up(self) -> None:
        """Wait until everything is read that had reached the server before."""
        # Twice: the server may take the first word before what waited on other connections, and never the second.
        for _ in range(2):
            self._word = uuid4().hex
            self._read_so_far.clear()
            await self._client.echo(self._word)
            async with asyncio.timeout(10):
                await self._read_so_far.wait()

    def _note(self, command: str, port: int) -> None:
        if command.endswith(self._word):
            self._read_so_far.set()
        call = CALL.match(command)
        if call is None or call["namespace"] != self._namespace:
            return
        if call["script"] == COMMITTED:
            self._running.pop(call["request"], None)
            self._committed.add(call["request"])
        elif call["request"] not in self._committed:
            # An attempt is named after the process and its number in it.
            self._started[call["request"]].add(call["attempt"].partition(".")[0])
            self._running[call["request"]] = port
            self._starts.release()
