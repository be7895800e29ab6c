"""What the tests of fail-overs share: a load of turns through a real worker while something happens to its Redis."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.reply_bodies import Reply
from interfaces.topology import Topology
from tests.integration.faults import Notebook, all_settled, applied, rounds, running, send_all, until, worker_settings
from tests.integration.faults import opened as opened_broker
from tests.integration.redis_probes import numbered_turn
from tests.services.redis_node import RedisNode
from worker.running import Worker
from worker.stores import Durability, Retention
from worker.stores.redis import RedisStore

CONTEXTS, TURNS = 20, 40
PATIENCE = 1.0


async def insist(call: Callable[[], Awaitable[object]], error: type[Exception], *, seconds: float = 30) -> int:
    """Make a call again and again until it succeeds; how often it failed with `error`."""
    failures = 0
    async with asyncio.timeout(seconds):
        while True:
            try:
                await call()
            except error:
                failures += 1
                await asyncio.sleep(0.02)
            else:
                return failures


@asynccontextmanager
async def opened_store(
    url: str, namespace: str = "test", *, durability: Durability = Durability.PRIMARY, patience: float = PATIENCE
) -> AsyncIterator[RedisStore]:
    """A store on servers that the test throws away."""
    store = RedisStore(url, namespace, Retention(), timeout=patience, durability=durability)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def commit(store: RedisStore, number: int, *, ctx_id: str = "ctx") -> None:
    """Commit turn `number` of a dialog."""
    await store.commit(numbered_turn(number, ctx_id=ctx_id))


def version_at(node: RedisNode, key: bytes) -> object:
    """The version of a context that this one server has, asked by nobody's store; `None` where it has none."""
    head = "local head = redis.call('HGET', KEYS[1], 'h'); return head and cmsgpack.unpack(head)"
    return node.ask("EVAL", head, 1, key)


async def longest_pause_of_turns(
    amqp_url: str,
    redis_url: str,
    client: BrokerClient,
    topology: Topology,
    fault: Callable[[], Awaitable[object]],
    *,
    replicas: int = 1,
) -> float:
    """Have a worker run dialogs while `fault` happens; the longest time without a reply, in seconds.

    Commits wait for so many replicas. Fails where a message was lost, applied twice or out of order, or where the
    replies to one differ.
    """
    sent = rounds((f"context {number}" for number in range(CONTEXTS)), range(TURNS))
    bot = Notebook(pace=0.01)
    options = {"redis_timeout": PATIENCE, "durability": Durability.REPLICA, "replicas": replicas}
    settings = worker_settings(topology.namespace, redis_url=redis_url, **options)
    replies: defaultdict[str | None, list[Reply]] = defaultdict(list)
    times: list[float] = []

    async with client.replies() as incoming, running(Worker(bot, settings, broker=RabbitMQBroker(amqp_url))):

        async def collect() -> None:
            async for reply in incoming:
                replies[reply.request_id].append(reply)
                times.append(time.monotonic())

        collecting = asyncio.create_task(collect())
        sending = asyncio.create_task(send_all(client, sent))
        await until(lambda: len(times) > CONTEXTS * TURNS // 5, "a fifth of the turns is answered")
        await fault()
        await sending
        async with opened_store(redis_url, topology.namespace) as store:
            await applied(store, sent)
        await until(lambda: len(replies) == CONTEXTS * TURNS, "every request has a reply")
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
    async with opened_broker(amqp_url) as broker:
        await all_settled(broker, topology)
    assert all(reply == first for first, *others in replies.values() for reply in others)
    return max(after - before for before, after in pairwise(times))
