"""The stores of the conformance suite, each empty for every test: in memory, on one Redis, on a Redis Cluster, and the
one that encrypts, on Redis.

`open_store` gives a store with a retention of the test's choice, `store` one with the default. On Redis every test has
a namespace of its own, whose keys are deleted afterwards, and a key without a TTL fails the test that left it.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from interfaces.encryption import Keys
from tests.conformance.store_probes import OpenStore, delete_namespace
from tests.services.local import SEARCH_PATH
from tests.services.packages import require_programs
from tests.services.redis_cluster import RedisCluster
from worker.stores import ContextStore, Retention
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore
from worker.stores.sealed import SealedStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the servers started: they are for the tests that name their fixture, and these ask for it by a parameter."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if isinstance(item, pytest.Function) and parameters.get("store_url") in ("redis", "encrypted"):
            item.fixturenames = [*item.fixturenames, "servers"]


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """A Redis Cluster without replicas, which is there in two seconds."""
    require_programs({"redis-server": "redis-server"}, SEARCH_PATH)
    cluster = RedisCluster(has_replicas=False)
    try:
        cluster.start_now()
        yield cluster.url
    finally:
        cluster.remove_now()


@pytest.fixture(params=["memory", "redis", "cluster", "encrypted"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """URL of the Redis to test, `None` for the memory store."""
    if request.param == "memory":
        return None
    return str(request.getfixturevalue("cluster_url" if request.param == "cluster" else "redis_url"))


@pytest.fixture
def keys(request: pytest.FixtureRequest) -> Keys | None:
    """What the store encrypts under, where it does."""
    is_encrypted = request.node.callspec.params.get("store_url") == "encrypted"
    return Keys({"k1": bytes(64)}) if is_encrypted else None


@pytest.fixture
async def open_store(store_url: str | None, keys: Keys | None) -> AsyncIterator[OpenStore]:
    namespace = f"test-{uuid.uuid4().hex}"
    stores: list[ContextStore] = []

    async def open_store(retention: Retention) -> ContextStore:
        store: ContextStore = (
            MemoryStore(retention) if store_url is None else RedisStore(store_url, namespace, retention)
        )
        if keys is not None:
            store = cast("ContextStore", SealedStore(store, keys))
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
