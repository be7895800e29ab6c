"""Calls to one Redis made in the same tick of the event loop travel together: one pipeline, one write, one connection.

Under load calls wait for those under way and then go together too: it makes pipelines longer, not more numerous.
An error reply or a cancelled caller never touches the other calls of a pipeline; a lost connection fails them all.
Nothing is sent twice but what Redis answered with NOSCRIPT, so did not run. `Server` is the only caller.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from interfaces.telemetry import Telemetry
from worker.stores.durability import Confirmation
from worker.stores.redis_errors import NotDurableError
from worker.stores.round_trips import RoundTrips

if TYPE_CHECKING:
    from interfaces.tracing import Tracing

_ELSEWHERE = (ReadOnlyError, NotDurableError)
"""What a server answers that takes writes no more, or alone: another one may have become the primary."""

MAX_CALLS = 256
"""Calls in one pipeline. Bounds the answers held in memory at once, and what one lost connection takes with it."""

FEW_CALLS = 8
"""Calls under way beside which the next ones go at once, where a connection is free: low load has nothing to gather."""

MANY_CALLS = 64
"""Calls that go although more than a few are under way: by then a pipeline costs each of them next to nothing."""

PATIENCE_SECONDS = 0.05
"""No call waits longer for those under way while a connection is free: theirs may have fallen silent."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, called by the SHA-1 that Redis knows it by."""

    name: str
    source: bytes
    sha: bytes

    @classmethod
    def named(cls, name: str, *before: str) -> "Script":
        """The script `scripts/{name}.lua` of this package, behind those of which it uses the functions."""
        scripts = files("worker.stores").joinpath("scripts")
        source = b"\n".join(scripts.joinpath(f"{part}.lua").read_bytes() for part in (*before, name))
        return cls(name, source, sha1(source, usedforsecurity=False).hexdigest().encode())


@dataclass(slots=True, eq=False)  # Not frozen, which makes them at a third of the speed: there is one to each call.
class Command:
    """A command on one key."""

    words: tuple[bytes, ...]
    key: bytes
    script: Script | None = None

    @classmethod
    def of_script(cls, script: Script, key: bytes, *arguments: bytes) -> "Command":
        """A call of `script` on its one key."""
        return cls((b"EVALSHA", script.sha, b"1", key, *arguments), key, script)


@dataclass(slots=True, eq=False)
class _Call:
    command: Command
    is_asking: bool
    answer: asyncio.Future[Any]
    member: Any = None
    """What the span of its batch links to, where there are traces."""

    def resolve(self, answer: object) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class TickPipeline:
    """Sends commands over at most `connections` connections of `trips`, those of one tick together and in order.

    With a `confirmation`, no answer of a pipeline counts before the copies of what it wrote are confirmed.
    """

    def __init__(
        self,
        trips: RoundTrips,
        connections: int,
        confirmation: Confirmation | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        telemetry = telemetry or Telemetry()
        self._sizes, self._tracing = telemetry.metrics.batch_size, telemetry.tracing
        self._round_trips = trips
        self._connections = connections
        self._confirmation = confirmation
        self._waiting: deque[_Call] = deque()
        self._exchanges: set[asyncio.Task[None]] = set()
        self._under_way = 0
        """Calls in them, those with an answer included."""
        self._patience: asyncio.TimerHandle | None = None
        self._flush_is_due = False
        self._closed = False

    def call(self, command: Command, *, is_asking: bool = False) -> "asyncio.Future[Any]":
        """Run one command; the answer as Redis gave it, or the error: returned, not raised.

        One error may belong to many calls, and raising the same object in many tasks would mix their tracebacks.
        `is_asking`: a cluster's node sent us here for this command alone.
        """
        loop = asyncio.get_running_loop()
        call = _Call(command, is_asking, loop.create_future())
        if self._closed:
            call.resolve(closed())
            return call.answer
        if self._tracing is not None:
            call.member = self._tracing.member()
        self._waiting.append(call)
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)
        return call.answer

    async def close(self) -> None:
        """Give up the calls not yet answered, with an error, and take no more. Never raises, may be repeated."""
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()
        while self._waiting:
            self._waiting.popleft().resolve(closed())
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)

    def _flush(self, *, is_late: bool = False) -> None:
        self._flush_is_due = False
        while self._waiting and self._may_send(is_late=is_late):
            is_late = False
            if batch := self._next_batch():
                self._under_way += len(batch)
                exchange = asyncio.create_task(
                    self._exchange(batch) if self._tracing is None else self._traced(batch, self._tracing)
                )
                self._exchanges.add(exchange)
                exchange.add_done_callback(partial(self._finish, batch))

    def _may_send(self, *, is_late: bool) -> bool:
        if len(self._exchanges) >= self._connections:
            return False
        if is_late or self._under_way <= FEW_CALLS or len(self._waiting) >= MANY_CALLS:
            return True
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._flush_late)
        return False

    def _flush_late(self) -> None:
        self._patience = None
        self._flush(is_late=True)

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        while self._waiting and len(batch) < MAX_CALLS:
            call = self._waiting.popleft()
            if not call.answer.done():  # else its caller was cancelled before anything was sent
                batch.append(call)
        return batch

    def _finish(self, batch: Sequence[_Call], exchange: asyncio.Task[None]) -> None:
        self._exchanges.discard(exchange)
        self._under_way -= len(batch)
        if exchange.cancelled():
            for call in batch:
                call.resolve(closed())
        elif (error := exchange.exception()) is not None:
            for call in batch:
                call.fail(error)
        self._flush()

    async def _traced(self, batch: Sequence[_Call], tracing: "Tracing") -> None:
        names = {call.command.script.name for call in batch if call.command.script is not None}
        with tracing.batch(" and ".join(sorted(names & {"load", "commit"})) or "redis", [c.member for c in batch]):
            await self._exchange(batch)

    async def _exchange(self, batch: Sequence[_Call]) -> None:
        try:
            answers = await self._send(batch)
            unknown: list[_Call] = []
            is_elsewhere = False
            for call, answer in zip(batch, answers, strict=True):
                if isinstance(answer, NoScriptError):
                    unknown.append(call)
                    continue
                call.resolve(answer)
                is_elsewhere |= isinstance(answer, _ELSEWHERE)
            if unknown:
                await self._send_with_scripts(unknown)
            if is_elsewhere:
                # A primary demoted by a failover answers READONLY for as long as its connections live.
                await self._round_trips.drop_idle()
        except (RedisError, OSError) as error:
            for call in batch:
                call.resolve(error)
            # They lead where this one led. On a host that fell silent each would cost the next call another time limit.
            await self._round_trips.drop_idle()

    async def _send_with_scripts(self, calls: Sequence[_Call]) -> None:
        # SCRIPT LOAD rather than EVAL: Redis 7.4 and later may evict scripts that came by EVAL.
        scripts = {call.command.script for call in calls if call.command.script is not None}
        answers = await self._send(calls, [(b"SCRIPT", b"LOAD", script.source) for script in scripts])
        for call, answer in zip(calls, answers, strict=True):
            call.resolve(answer)

    async def _send(self, calls: Sequence[_Call], before: Sequence[tuple[bytes, ...]] = ()) -> list[Any]:
        """One round trip; the answer to each call. Raises where the connection fails."""
        words, places = list(before), []
        for call in calls:
            if call.is_asking:
                words.append((b"ASKING",))
            places.append(len(words))
            words.append(call.command.words)
        if self._confirmation is not None:
            words.append(self._confirmation.words)
        answers = await self._round_trips.make(words)
        self._note_sizes(calls)
        own = [answers[place] for place in places]
        shortfall = self._confirmation and self._confirmation.shortfall(answers[-1])
        return own if shortfall is None else [answer if isinstance(answer, Exception) else shortfall for answer in own]

    def _note_sizes(self, calls: Sequence[_Call]) -> None:
        scripts = [call.command.script.name for call in calls if call.command.script is not None]
        for name in ("load", "commit"):
            if count := scripts.count(name):
                self._sizes[name].observe(count)


def closed() -> RedisError:
    """The error of a call that this process no longer makes."""
    return exceptions.ConnectionError("the connection to Redis was closed by this process")
