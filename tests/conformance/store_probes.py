"""What tests of a store share besides fixtures: the type that opens one, and clearing a namespace of a Redis."""

from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from worker.stores import ContextStore, Retention

OpenStore = Callable[[Retention], Awaitable[ContextStore]]


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
