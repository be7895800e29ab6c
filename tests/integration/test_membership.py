"""Several workers on one namespace: shards are spread, change hands in order, and stay where they are without Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import ceil

import pytest
from pydantic import SecretStr

from interfaces.client import BrokerClient
from interfaces.context import Context
from tests.integration.redis_probes import eventually, proxied
from tests.services.proxy import TcpProxy
from worker import Settings, Worker
from worker.membership import LIFE_SECONDS

SHARDS = 8


class Fleet:
    """Workers of one namespace in this process, each with connections of its own."""

    def __init__(self, amqp_url: str, redis_url: str, namespace: str) -> None:
        self._settings = Settings(
            amqp_url=amqp_url, redis_url=redis_url, namespace=namespace, shards=SHARDS, redis_timeout=1
        )
        self.workers: list[Worker] = []
        self._runs: dict[Worker, asyncio.Task[None]] = {}

    async def join(self, amqp_url: str | None = None) -> Worker:
        changes = {} if amqp_url is None else {"amqp_url": SecretStr(amqp_url)}
        worker = Worker(count, self._settings.model_copy(update=changes))
        self.workers.append(worker)
        self._runs[worker] = asyncio.create_task(worker.run())
        await worker.wait_ready()
        return worker

    async def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.stop()
        await self._runs.pop(worker)

    async def close(self) -> None:
        for worker in list(self.workers):
            await self.leave(worker)

    @property
    def owned(self) -> list[list[str]]:
        """The shards of each worker, by its own word."""
        return [worker.owned for worker in self.workers]

    def is_balanced(self) -> bool:
        """Whether every shard has one owner and nobody more than a fair share."""
        everything = [shard for shards in self.owned for shard in shards]
        fair = ceil(SHARDS / len(self.workers))
        return len(everything) == len(set(everything)) == SHARDS and max(map(len, self.owned)) <= fair

    def is_served_by_its_owners(self) -> bool:
        """Whether the broker delivers to the owners and to nobody else, each of them in balance."""
        served = [sorted(worker._interface.delivering) for worker in self.workers]
        return self.is_balanced() and served == self.owned


async def count(ctx: Context) -> str:
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return str(ctx.misc["turns"])


@pytest.fixture
async def fleet(amqp_url: str, redis_url: str, namespace: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(amqp_url, redis_url, namespace)
    yield fleet
    await fleet.close()


@asynccontextmanager
async def talking(amqp_url: str, namespace: str, users: int = 40) -> AsyncIterator[list[int]]:
    """Users who ask again and again; each answer must be the number of the question, or order or state was lost."""
    stop = asyncio.Event()
    asked = [0] * users

    async def user(client: BrokerClient, number: int) -> None:
        while not stop.is_set():
            reply = await client.ask("next", f"user {number}", timeout=30)
            asked[number] += 1
            assert reply.message is not None
            assert reply.message.text == str(asked[number])

    async with BrokerClient(amqp_url, namespace=namespace) as client, asyncio.TaskGroup() as group:
        for number in range(users):
            group.create_task(user(client, number))
        yield asked
        stop.set()


async def test_shards_are_spread_over_workers_as_they_come_and_go_under_load(
    fleet: Fleet, amqp_url: str, namespace: str
) -> None:
    await fleet.join()
    async with talking(amqp_url, namespace) as asked:
        for _ in range(2):
            await fleet.join()
            await eventually(fleet.is_balanced, seconds=30)
        before = sum(asked)
        await fleet.leave(fleet.workers[0])
        await eventually(fleet.is_balanced, seconds=30)
        await eventually(lambda: sum(asked) > before)


async def test_workers_that_start_together_are_served_by_the_broker_as_they_have_shared_out(
    fleet: Fleet, amqp_url: str, namespace: str
) -> None:
    """Who only waits for a shard must not be in line before its owner: the broker serves whoever was there first."""
    await asyncio.gather(*(fleet.join() for _ in range(4)))
    async with talking(amqp_url, namespace):
        await eventually(fleet.is_served_by_its_owners, seconds=30)


async def test_a_shard_comes_back_to_an_owner_that_lost_its_connection_for_a_moment(
    fleet: Fleet, amqp_url: str, namespace: str
) -> None:
    async with proxied(amqp_url) as (proxy, url):
        owner, standby = await fleet.join(url), await fleet.join()
        async with talking(amqp_url, namespace):
            await eventually(
                lambda: fleet.is_served_by_its_owners() and set(owner.owned) <= set(standby.consumed), seconds=30
            )
            await proxy.cut()
            await eventually(lambda: bool(set(owner.owned) & standby._interface.delivering))
            await eventually(fleet.is_served_by_its_owners, seconds=30)
        await fleet.close()


async def test_without_redis_shards_stay_where_they_are(amqp_url: str, redis_url: str, namespace: str) -> None:
    async with AsyncExitStack() as stack:
        proxy, url = await stack.enter_async_context(proxied(redis_url))
        fleet = Fleet(amqp_url, url, namespace)
        stack.push_async_callback(fleet.close)
        await fleet.join()
        await fleet.join()
        await eventually(fleet.is_balanced, seconds=30)
        # Of two workers each waits for what the other owns.
        await eventually(lambda: all(len(worker.consumed) == SHARDS for worker in fleet.workers))
        before = fleet.owned
        consumed = [worker.consumed for worker in fleet.workers]
        await away(proxy, LIFE_SECONDS + 1)
        assert fleet.owned == before
        assert [worker.consumed for worker in fleet.workers] == consumed
        async with BrokerClient(amqp_url, namespace=namespace) as client:
            assert (await client.ask("after", "somebody")).status == "ok"


async def away(proxy: TcpProxy, seconds: float) -> None:
    """Let Redis be unreachable for so long; the length of the outage is what is tested, nothing is waited for."""
    accepted = proxy.accepted
    await proxy.close()
    await asyncio.sleep(seconds)
    await proxy.start()
    await eventually(lambda: proxy.accepted > accepted)
