"""A client whose reply queue is on a lost node of a cluster, and only there, takes another one and misses no answer."""

import asyncio
from collections.abc import Callable

import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from interfaces.brokers import Channel, Delivery
from interfaces.brokers.mapping import mapped
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import BrokerUnavailable, QueueStranded
from tests.integration.faults import until
from worker.running import Worker
from worker.settings import load_settings

GONE = "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible"
MISSING = "NOT_FOUND - no queue 'q' in vhost '/'"


class ClusteredBroker(MemoryBroker):
    """A broker some of whose queues are on a node that is lost."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.channels: dict[str, Channel] = {}
        self._stranded: set[str] = set()

    async def strand(self, queue: str) -> None:
        self._stranded.add(queue)
        await self.channels.pop(queue).close()

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        if queue in self._stranded:
            raise QueueStranded(f"consuming queue {queue!r}: {GONE}")
        self.channels[queue] = channel = await super().consume(queue, prefetch, deliver)
        return channel


@pytest.mark.parametrize(("text", "kind"), [(GONE, QueueStranded), (MISSING, BrokerUnavailable)])
def test_a_queue_on_a_lost_node_is_told_from_one_that_is_missing(text: str, kind: type[Exception]) -> None:
    assert type(mapped(ChannelNotFoundEntity(404, text), "consuming")) is kind


async def test_what_was_asked_is_asked_again_under_the_same_id_into_another_queue() -> None:
    server, release, runs = MemoryServer(), asyncio.Event(), 0

    async def bot(ctx: Context) -> str:
        nonlocal runs
        runs += 1
        await release.wait()
        return "answer"

    broker = ClusteredBroker(server)
    worker = Worker(bot, load_settings(shards=1), broker=MemoryBroker(server))
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    async with BrokerClient(broker=broker) as client:
        asking = asyncio.create_task(client.ask("question", "somebody"))
        await until(lambda: runs == 1, "the turn has begun")
        [lost] = broker.channels
        await broker.strand(lost)
        await until(lambda: bool(broker.channels), "another queue is consumed")
        release.set()
        reply = await asking
        assert reply.message is not None
        assert reply.message.text == "answer"
    assert runs == 1
    worker.stop()
    await working


async def test_replies_to_what_was_sent_go_on_in_another_queue() -> None:
    server = MemoryServer()
    broker = ClusteredBroker(server)
    worker = Worker(lambda _: "answer", load_settings(shards=1), broker=MemoryBroker(server))
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    async with BrokerClient(broker=broker) as client, client.replies() as replies:
        await until(lambda: bool(broker.channels), "replies are listened for")
        [lost] = broker.channels
        listening = asyncio.ensure_future(anext(replies))
        await broker.strand(lost)
        await until(lambda: bool(broker.channels), "another queue is consumed")
        request_id = await client.send("hello", "somebody")
        assert (await listening).request_id == request_id
    worker.stop()
    await working
