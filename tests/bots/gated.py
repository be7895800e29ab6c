"""Bots whose turn, asked to hold, begins visibly and then lasts until the test lets it end.

The gate is two lists in Redis, so that a test in another process can wait for the beginning and cause the end. Run by
the worker processes of the integration tests.
"""

import os

import redis
import redis.asyncio

from interfaces.context import Context

HOLD = "hold until released"
MOST_SECONDS = 60


def began_key(namespace: str) -> str:
    """List that gets an entry when a turn has begun to hold."""
    return f"{namespace}:gate:began"


def release_key(namespace: str) -> str:
    """List whose next entry ends one holding turn."""
    return f"{namespace}:gate:release"


async def answer(ctx: Context) -> str:
    """Reply with the text; hold without blocking the event loop."""
    text = ctx.last_request.text or ""
    if text == HOLD:
        url, namespace = os.environ["SWITCHBOARD_REDIS_URL"], os.environ["SWITCHBOARD_NAMESPACE"]
        async with redis.asyncio.Redis.from_url(url, socket_timeout=2 * MOST_SECONDS) as client:
            await client.rpush(began_key(namespace), ctx.id)
            assert await client.blpop([release_key(namespace)], timeout=MOST_SECONDS)
    return text


def answer_blocking(ctx: Context) -> str:
    """Reply with the text; hold as a plain function that blocks its thread."""
    text = ctx.last_request.text or ""
    if text == HOLD:
        url, namespace = os.environ["SWITCHBOARD_REDIS_URL"], os.environ["SWITCHBOARD_NAMESPACE"]
        with redis.Redis.from_url(url, socket_timeout=2 * MOST_SECONDS) as client:
            client.rpush(began_key(namespace), ctx.id)
            assert client.blpop([release_key(namespace)], timeout=MOST_SECONDS)
    return text
