"""What the Redis tests share: a store with a namespace of its own, a proxy before the server, the server's counters."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from interfaces.errors import StoreUnavailable
from tests.conformance.store_probes import delete_namespace
from tests.services.proxy import TcpProxy
from worker.stores import Loaded, Retention, Turn
from worker.stores.redis import RedisStore
from worker.stores.servers import OneServer

Link = tuple[TcpProxy, RedisStore]
"""A store, and the proxy its connections go through."""

EPOCH = 1_700_000_000_000_000


@asynccontextmanager
async def opened(
    url: str,
    retention: Retention | None = None,
    *,
    namespace: str | None = None,
    via: str | None = None,
    patience: float = 5.0,
) -> AsyncIterator[RedisStore]:
    """A store on the Redis at `url`, connected by way of `via` where given; its namespace is empty again afterwards."""
    namespace = namespace or f"test-{uuid.uuid4().hex}"
    store = RedisStore(via or url, namespace, retention or Retention(), timeout=patience)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
        await delete_namespace(url, namespace)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """A proxy before the server of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    async with TcpProxy(parts.hostname or "127.0.0.1", parts.port or 6379) as proxy:
        yield proxy, through(proxy, url)


def through(proxy: TcpProxy, url: str) -> str:
    """The URL that leads by way of a proxy that was started."""
    parts = urlsplit(url)
    netloc = f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}".lstrip("@")
    return parts._replace(netloc=netloc).geturl()


async def load(
    store: RedisStore, request_id: str, *, ctx_id: str = "ctx", attempt: str = "a", history: int = 5
) -> Loaded:
    return await store.load(ctx_id, request_id, epoch=EPOCH, attempt=attempt, history=history)


def numbered_turn(number: int, *, ctx_id: str = "ctx") -> Turn:
    """Turn `number` of a dialog, all of whose turns have the same length."""
    return Turn(
        ctx_id=ctx_id,
        request_id=f"request {number:08d}",
        version=number - 1,
        main=b"m" * 300,
        turns={number: b"turn %08d" % number},
        reply=b"reply %08d" % number,
    )


def is_busy(store: RedisStore, calls: int = 1) -> bool:
    """Whether so many calls of a store on one server are under way."""
    assert isinstance(store._pipeline, OneServer)
    return store._pipeline.server.pipeline._under_way >= calls


async def command_calls(url: str) -> Mapping[str, int]:
    """How often the server has run each command."""
    async with Redis.from_url(url) as client:
        stats: dict[str, Any] = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in stats.items()}


async def calls_since(url: str, before: Mapping[str, int]) -> dict[str, int]:
    """How often the server has run each command since `before`."""
    now = await command_calls(url)
    return {name: calls - before.get(name, 0) for name, calls in now.items() if calls > before.get(name, 0)}


async def eventually(condition: Callable[[], bool], *, pause: float = 0.01, seconds: float = 10) -> None:
    """Return when `condition` holds, looking every `pause` seconds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(pause)


async def lose_answer(link: Link, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Make a call that Redis carries out and whose answer is lost with its connection; a new one would do at once."""
    proxy, _ = link
    before = proxy.dropped
    proxy.drop_replies()
    lost = asyncio.create_task(call())
    await eventually(lambda: proxy.dropped > before)
    proxy.resume()
    await proxy.cut()
    with pytest.raises(StoreUnavailable):
        await lost
