"""The store's calls on their way to the server that holds the key: one server here, a cluster's nodes in `cluster`.

Commits may have a pipeline of their own: while one waits for its copies, loads go on. Errors of the client library end
here and become the store's. Used by `RedisStore` and the doctor.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from interfaces.errors import StoreRefused, StoreUnavailable
from interfaces.telemetry import Telemetry
from worker.stores.durability import Confirmation, refuse_without_disk
from worker.stores.pipelining import Command, Script, TickPipeline
from worker.stores.redis_errors import is_login_refused, store_error
from worker.stores.refusals import LOGIN, Refusals
from worker.stores.round_trips import RoundTrips

CONNECTIONS: Final = 2
"""Connections of one pipeline: while one batch of calls is being answered, the next one may already travel."""

MAX_CONNECTIONS: Final = 2 * CONNECTIONS + 1
"""Connections to one server: those of the pipeline for commits that wait and of the one for everything else, which
stay in hand, and one for who comes by no pipeline."""

OLDEST_VERSION: Final = (7, 0)
"""Oldest version the scripts are tested with."""


class Server:
    """One Redis (or Valkey) that takes writes."""

    def __init__(self, client: Redis, confirmation: Confirmation | None, telemetry: Telemetry | None = None) -> None:
        self.client = client
        self._confirmation = confirmation
        trips = RoundTrips(client)
        self.pipeline = TickPipeline(trips, CONNECTIONS, telemetry=telemetry)
        self._commits = (
            self.pipeline if confirmation is None else TickPipeline(trips, CONNECTIONS, confirmation, telemetry)
        )

    async def check(self, scripts: Sequence[Script]) -> None:
        """Check version and durability, and let it know the scripts. Raises `StoreRefused`, or redis-py's errors."""
        await self.client.ping()
        info: dict[str, Any] = await self.client.info("server")
        # Valkey reports here the version of Redis that it is compatible with.
        text = str(info.get("redis_version", "0"))
        version = tuple(int(part) for part in text.split(".")[:2])
        if version < OLDEST_VERSION:
            raise StoreRefused(f"Redis is version {text}; 7.0 or later is needed")
        if self._confirmation is not None and self._confirmation.fsyncs is not None:
            refuse_without_disk(version, await self.client.info("persistence"))
        for script in scripts:
            await self.client.script_load(script.source)

    def call(self, command: Command, *, is_durable: bool, is_asking: bool = False) -> Awaitable[Any]:
        """See `TickPipeline.call`. `is_durable`: the answer counts once the copies asked for are confirmed."""
        pipeline = self._commits if is_durable else self.pipeline
        return pipeline.call(command, is_asking=is_asking)

    async def close(self) -> None:
        """Give up what is not yet answered and close all connections. Never raises, may be repeated."""
        await self.pipeline.close()
        await self._commits.close()
        with suppress(RedisError, OSError):
            await self.client.aclose()


class Servers(ABC):
    """Runs commands where their keys are."""

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self.telemetry = telemetry or Telemetry()
        self.telemetry.servers["redis"] = lambda: self._is_up
        self._is_up = False
        self._was_up = False
        self._refusals = Refusals()

    async def open(self, scripts: Sequence[Script]) -> None:
        """Connect, check every server, let it know the scripts. Raises `StoreRefused` or `StoreUnavailable`."""
        try:
            await self._open(scripts)
        except (RedisError, OSError) as error:
            raise store_error(error) from error
        self._note_up()

    def script(self, script: Script, key: bytes, *arguments: bytes, is_durable: bool = False) -> Awaitable[Any]:
        """Run `script` on its one key; the answer as Redis gave it. Raises what `store_error` makes of a failure."""
        return self._checked(Command.of_script(script, key, *arguments), is_durable)

    def command(self, name: bytes, key: bytes, *arguments: bytes, is_durable: bool = False) -> Awaitable[Any]:
        """Run one command on its one key, as `script` does."""
        return self._checked(Command((name, key, *arguments), key), is_durable)

    async def _checked(self, command: Command, is_durable: bool) -> Any:
        answer = await self._call(command, is_durable)
        kind = command.script.sha if command.script is not None else command.words[0]
        if not isinstance(answer, Exception):
            self._refusals.note_allowed(kind)
            if not self._is_up:
                self._note_up()
            return answer
        error = store_error(answer)
        self._is_up = self._is_up and not isinstance(error, StoreUnavailable)
        if isinstance(error, StoreRefused) and self._refusals.may_pass(LOGIN if is_login_refused(answer) else kind):
            raise StoreUnavailable(f"refused what was allowed before: {error}") from answer
        raise error from answer

    def _note_up(self) -> None:
        self.telemetry.metrics.reconnects_total["redis"] += self._was_up
        self._is_up = self._was_up = True

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """The keys on all servers that match, some maybe twice. Raises what `store_error` makes of a failure."""
        try:
            for client in self.clients:
                async for key in client.scan_iter(match=pattern, count=1000):
                    yield key
        except (RedisError, OSError) as error:
            raise store_error(error) from error

    @property
    @abstractmethod
    def clients(self) -> Sequence[Redis]:
        """A client of every server that takes writes, once open."""

    @abstractmethod
    async def close(self) -> None:
        """Give up what is not yet answered and close all connections. Never raises, may be repeated."""

    @abstractmethod
    async def _open(self, scripts: Sequence[Script]) -> None: ...

    @abstractmethod
    def _call(self, command: Command, is_durable: bool) -> Awaitable[Any]:
        """The answer, or the error: returned, not raised."""


class OneServer(Servers):
    """All keys on one server: the one a URL names, or whichever the sentinels call the primary."""

    def __init__(
        self, client: Redis, confirmation: Confirmation | None = None, telemetry: Telemetry | None = None
    ) -> None:
        super().__init__(telemetry)
        self.server = Server(client, confirmation, telemetry)

    @property
    def clients(self) -> Sequence[Redis]:
        """The one client."""
        return [self.server.client]

    async def close(self) -> None:
        """See `Servers.close`."""
        await self.server.close()

    async def _open(self, scripts: Sequence[Script]) -> None:
        await self.server.check(scripts)

    def _call(self, command: Command, is_durable: bool) -> Awaitable[Any]:
        return self.server.call(command, is_durable=is_durable)
