"""Makes redis-py clients: what every connection of the store has in common, and where a connection leads.

The client library repeats nothing by itself: commands may be repeated, but that is the caller's decision, and one that
runs into a fail-over must look for the new primary first. Called by the store's servers and by the doctor.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

from interfaces.errors import StoreRefused
from interfaces.tls import client_context, handshake_fault
from worker.stores.address import Host, RedisAddress

HEALTH_CHECK_SECONDS: Final = 30
"""A connection idle for longer is tried with a PING before use."""

SENTINEL_SECONDS: Final = 1.0
"""Time a sentinel has to answer, where the store's own limit is not shorter: it holds up every new connection."""


def server_client(address: RedisAddress, timeout: float, connections: int, host: Host | None = None) -> Redis:
    """A client of the server at `address`, or of a cluster's node at `host`. `timeout`, in seconds, bounds waits."""
    options: dict[str, Any] = {**_options(timeout), **parse_url(address.server_url)}
    options["connection_class"] = _losing_plainly(options.get("connection_class", Connection))
    if host is not None:
        options["host"], options["port"] = host
    if "path" in options:
        del options["socket_keepalive"]  # A Unix socket has none, and redis-py refuses the word.
    pool = BlockingConnectionPool(**({"max_connections": connections, "timeout": timeout} | options))
    return Redis.from_pool(pool)


def primary_client(address: RedisAddress, timeout: float) -> Redis:
    """A client of whatever server the sentinels at `address` call the primary when a connection is made."""
    options: dict[str, Any] = {**_options(timeout), **parse_url(address.server_url)}
    for name in ("host", "port"):  # those of a sentinel
        options.pop(name, None)
    is_encrypted = options.pop("connection_class", None) is SSLConnection
    encryption = {name: value for name, value in options.items() if name.startswith("ssl_")}
    kind = SentinelManagedSSLConnection if is_encrypted else SentinelManagedConnection
    options["connection_class"] = _losing_plainly(kind)
    sentinels = _Sentinels(address, encryption, timeout)
    return Redis.from_pool(_PrimaryPool(address.primary, sentinels, **options))  # type: ignore[no-untyped-call]  # redis-py has no types here


def _options(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "protocol": 2,
    }


def refuse_unusable_files(address: RedisAddress) -> None:
    """Raise `StoreRefused` where a file for TLS cannot be used, which redis-py reports like a server that is away."""
    if address.is_encrypted:
        options: dict[str, Any] = {**parse_url(address.server_url)}
        files = (options.get(name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
        try:
            client_context(*files)
        except ValueError as error:
            raise StoreRefused(f"TLS to Redis: {error}") from error


@cache
def _losing_plainly(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """`kind`, which says in redis-py's own way that it was lost, on every event loop.

    uvloop raises a bare `RuntimeError` where a connection is written to that was reset, be it while it is made. Let
    through, it would pass for an error of the bot, and its turn would end as a dead letter; of a sentinel, it would
    hide what the others answer.
    """

    class LosingPlainly(kind):  # type: ignore[misc,valid-type]  # whichever it is
        async def send_packed_command(self, *args: Any, **more: Any) -> None:
            try:
                await super().send_packed_command(*args, **more)
            except RuntimeError as error:
                raise ConnectionLost(f"Error while writing to socket: {error}") from error

    return LosingPlainly


class _PrimaryPool(SentinelConnectionPool):
    """Connections to the primary, and those to the sentinels, which the library's pool leaves open at the end."""

    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


class _Sentinels(Sentinel):
    """Asks all sentinels at once and believes the one that saw the latest fail-over.

    The library asks one after the other and believes the first: one that a network partition has left behind would send
    every new connection to the old primary, and one that does not answer would hold each of them up.
    """

    def __init__(self, address: RedisAddress, encryption: dict[str, Any], timeout: float) -> None:
        options: dict[str, Any] = _options(min(timeout, SENTINEL_SECONDS)) | {"ssl": address.is_encrypted} | encryption
        options |= {"username": address.sentinel_user, "password": address.sentinel_password}
        super().__init__(address.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # redis-py has no types here
        self._hosts = address.hosts
        for sentinel in self.sentinels:
            pool: Any = sentinel.connection_pool
            pool.connection_class = _losing_plainly(pool.connection_class)

    async def discover_master(self, service_name: str) -> Host:
        """Host and port of the primary. Raises `MasterNotFoundError` with what each sentinel said."""
        answers = await asyncio.gather(*(self._ask(sentinel) for sentinel in self.sentinels))
        known = [answer[service_name] for answer in answers if isinstance(answer, dict) and service_name in answer]
        usable = [state for state in known if self.check_master_state(state, service_name)]
        if not usable:
            # The first refused handshake as its cause: `store_error` tells that one from sentinels that are away.
            refused = next((it for it in answers if isinstance(it, Exception) and handshake_fault(it)), None)
            raise MasterNotFoundError(
                f"no primary {service_name!r}: {self._explain(service_name, answers)}"
            ) from refused
        newest = max(usable, key=lambda state: int(state["config-epoch"]))
        return newest["ip"], newest["port"]

    @staticmethod
    async def _ask(sentinel: Redis) -> dict[str, dict[str, Any]] | Exception:
        try:
            states: Any = await sentinel.sentinel_masters()
        except (RedisError, OSError) as error:
            return error
        return dict(states)

    def _explain(self, name: str, answers: Sequence[dict[str, dict[str, Any]] | Exception]) -> str:
        said = []
        for (host, port), answer in zip(self._hosts, answers, strict=True):
            if isinstance(answer, Exception):
                text = f"{type(answer).__name__}: {answer}"
            elif name in answer:
                text = f"it is {answer[name]['flags']}"
            else:
                text = f"knows {', '.join(map(repr, answer)) or 'none'} only"
            said.append(f"the sentinel at {host}:{port}: {text}")
        return "; ".join(said)
