"""The two stores of the conformance suite, each empty for every test.

`open_store` gives a store with a retention of the test's choice, `store` one with the default. On Redis every test has
a namespace of its own, whose keys are deleted afterwards, and a key without a TTL fails the test that left it.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from worker.stores import ContextStore, Retention
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore

OpenStore = Callable[[Retention], Awaitable[ContextStore]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the servers started: they are for the tests that name their fixture, and these ask for it by a parameter."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if isinstance(item, pytest.Function) and parameters.get("store_url") == "redis":
            item.fixturenames = [*item.fixturenames, "servers"]


@pytest.fixture(params=["memory", "redis"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """URL of the Redis to test, `None` for the memory store."""
    return None if request.param == "memory" else str(request.getfixturevalue("redis_url"))


@pytest.fixture
async def open_store(store_url: str | None) -> AsyncIterator[OpenStore]:
    namespace = f"test-{uuid.uuid4().hex}"
    stores: list[ContextStore] = []

    async def open_store(retention: Retention) -> ContextStore:
        store: ContextStore = (
            MemoryStore(retention) if store_url is None else RedisStore(store_url, namespace, retention)
        )
        stores.append(store)
        await store.open()
        return store

    yield open_store
    for store in stores:
        await store.close()
    if store_url is not None:
        await delete_namespace(store_url, namespace)


@pytest.fixture
async def store(open_store: OpenStore) -> ContextStore:
    return await open_store(Retention())


async def delete_namespace(url: str, namespace: str) -> None:
    """Delete all keys of a namespace, then fail where one of them would have stayed for ever."""
    async with Redis.from_url(url) as client:
        keys = [key async for key in client.scan_iter(match=f"{namespace}:*", count=1000)]
        immortal = [key for key in keys if await client.ttl(key) == -1]
        async with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.unlink(key)
            await pipeline.execute()
    assert not immortal, f"keys without a TTL: {immortal}"
