"""What tests of a store share besides fixtures: the type that opens one, and clearing a namespace of a Redis."""

from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from worker.stores import ContextStore, Retention
from worker.stores.address import parse_address
from worker.stores.redis import connect

OpenStore = Callable[[Retention], Awaitable[ContextStore]]


async def delete_namespace(url: str, namespace: str) -> None:
    """Delete all keys of a namespace, then fail where one of them would have stayed for ever."""
    servers = connect(parse_address(url), timeout=5)
    try:
        await servers.open(())
        immortal = [key for client in servers.clients for key in await _delete_keys(client, namespace)]
    finally:
        await servers.close()
    assert not immortal, f"keys without a TTL: {immortal}"


async def _delete_keys(client: Redis, namespace: str) -> list[bytes]:
    """Delete the keys of a namespace that one server has; those that had no TTL."""
    keys = [key async for key in client.scan_iter(match=f"{namespace}:*", count=1000)]
    immortal = [key for key in keys if await client.ttl(key) == -1]
    async with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.unlink(key)
        await pipeline.execute()
    return immortal
