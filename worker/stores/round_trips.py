"""Round trips over redis-py's connections, without what it spends on every connection and every answer.

Its pool looks at a connection before it gives it out, and counts for monitoring what it gives and takes: two fifths of
the calls of a round trip. For each answer it sets up a time limit and three coroutines, though most are there
already when the first is. Used by `TickPipeline`.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final

from hiredis import Reader, pack_command
from redis import exceptions
from redis._parsers import hiredis as hiredis_parsing
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

TRUSTED_SECONDS: Final = 1.0
"""A connection that was used so lately is used again as it is. One that the server has closed since fails the calls,
as it would in the middle of them."""

_packed: Callable[[tuple[bytes, ...]], bytes] = pack_command  # type: ignore[assignment]  # typed for one word there


class RoundTrips:
    """Round trips over the connections of `client`, of which those used lately stay in hand.

    One to a server, for all that go there: who finds that the server is the wrong one now drops the connections of all.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._idle: list[tuple[float, AbstractConnection]] = []
        """With when it was used, the last one at the end."""

    async def make(self, words: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """Send commands; the answer to each, errors among them. Raises where the connection fails."""
        sent = b"".join(map(_packed, words))
        connection, writer = self._in_hand() or (await self._from_pool(), None)
        try:
            if writer is None:
                await connection.send_packed_command([sent])
            answers = await _answers(connection, len(words), writer, sent)
        except BaseException:
            await self._drop(connection)  # With answers left to read it would give them to the next call.
            raise
        if self._pool.can_get_connection():
            self._idle.append((monotonic(), connection))
        else:
            await self._pool.release(connection)  # Somebody may be waiting for one.
        return answers

    async def drop_idle(self) -> None:
        """Close all connections that nobody uses. Never raises."""
        while self._idle:
            # Each by itself: one that is not given back is missing from the pool for good, which has a few of them.
            with suppress(RedisError, OSError):
                await self._drop(self._idle.pop()[1])
        with suppress(RedisError, OSError):
            await self._pool.disconnect(inuse_connections=False)

    def _in_hand(self) -> tuple[AbstractConnection, StreamWriter] | None:
        """A connection that was used lately and is not known to be lost; none where redis-py looks different."""
        if not self._idle or monotonic() - self._idle[-1][0] >= TRUSTED_SECONDS:
            return None
        connection = self._idle[-1][1]
        if (writer := self._writer_of(connection)) is not None:
            self._idle.pop()
            return connection, writer
        return None

    def _writer_of(self, connection: Any) -> StreamWriter | None:
        """What writes to a connection; `None` where that is lost, leads elsewhere, or redis-py looks different."""
        reader, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
        if not (isinstance(reader, StreamReader) and isinstance(writer, StreamWriter)):
            return None
        primary = getattr(self._pool, "master_address", None)  # Which the sentinels have told, where there are any.
        is_right = primary is None or primary == (connection.host, connection.port)
        return writer if is_right and not reader.at_eof() and not writer.is_closing() else None

    async def _from_pool(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()[1]
            # The pool does not see that one was reset, nor that it leads to who was the primary before.
            await (self._drop(connection) if self._writer_of(connection) is None else self._pool.release(connection))
        taken: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        return taken

    async def _drop(self, connection: AbstractConnection) -> None:
        try:
            await connection.disconnect(nowait=True)
        finally:
            await self._pool.release(connection)


async def _answers(connection: AbstractConnection, count: int, writer: StreamWriter | None, unsent: bytes) -> list[Any]:
    """The next answers. Each has the connection's time limit, or up to a tenth less.

    :param writer: the connection's own, where something is `unsent` yet: redis-py takes a task for the same time limit.
    """
    time, limit = asyncio.get_running_loop().time, connection.socket_timeout
    answers: list[Any] = []
    renew_at = time() + limit / 10 if limit is not None else inf
    try:
        async with asyncio.timeout(limit) as over:
            if writer is not None:
                writer.write(unsent)
                await writer.drain()
            while len(answers) < count:
                if limit is not None and (now := time()) >= renew_at:
                    over.reschedule(now + limit)
                    renew_at = now + limit / 10
                try:
                    answers.append(await connection.read_response(timeout=inf))
                    answers += _answers_at_hand(connection, count - len(answers))
                except ResponseError as error:
                    answers.append(error)
    except TimeoutError as error:
        pieces: Any = connection.repr_pieces()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        where = ":".join(str(part) for name, part in pieces if name in {"host", "port", "path"})
        raise exceptions.TimeoutError(f"Timeout reading from {where}") from error
    return answers


def _answers_at_hand(connection: AbstractConnection, count: int) -> list[Any]:
    """Those of the next answers that hiredis has read already; none where redis-py looks different."""
    reader = getattr(getattr(connection, "_parser", None), "_reader", None)
    answers: list[Any] = []
    if not isinstance(reader, Reader) or _NOTHING is None:
        return answers
    for _ in range(count):
        if (answer := reader.gets()) is _NOTHING:
            break
        if isinstance(answer, exceptions.ConnectionError):
            raise answer  # As redis-py has it: a server that is still loading is as good as away.
        answers.append(answer)
    return answers


_NOTHING: Any = getattr(hiredis_parsing, "NOT_ENOUGH_DATA", None)
