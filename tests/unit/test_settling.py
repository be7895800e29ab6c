"""A reply that nobody takes: at once given up where nobody listens, not while the broker is not whole."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from interfaces import settling
from interfaces.brokers import Delivery
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.envelope import decode_request, encode_request
from interfaces.messages import Message
from interfaces.request_queues import RequestQueues
from interfaces.settling import Settler
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox
from tests.unit.deliveries import StubChannel

TOPOLOGY = Topology("ns", shards=1)


class Bench:
    """A settler on an embedded broker that is whole when the test says so."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(MemoryServer())
        self.is_whole = True
        self.asked = asyncio.Event()
        self.settler = Settler(self.broker, RequestQueues(self.broker, TOPOLOGY), "worker", self._is_whole)

    def _is_whole(self, seconds: float) -> bool:
        self.asked.set()
        return self.is_whole

    def request(self, reply_to: str | None = None) -> Delivery:
        outgoing = encode_request(TOPOLOGY, Message("hello"), "ctx", request_id="r")
        properties = replace(outgoing.properties, reply_to=reply_to)
        return Delivery(outgoing.body, properties, outgoing.exchange, outgoing.routing_key, False, 0, 1, StubChannel())

    async def answer(self, delivery: Delivery) -> bool:
        """Whether the request was acknowledged."""
        await self.settler.answer(decode_request(delivery, TOPOLOGY), b"reply")
        assert isinstance(delivery.channel, StubChannel)
        return delivery.channel.acked == [delivery]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(settling, "WHOLE_SECONDS", 0.1)
    bench = Bench()
    await bench.broker.open()
    await bench.broker.apply(TOPOLOGY)
    return bench


async def test_a_reply_that_nobody_listens_for_is_given_up_at_once(bench: Bench) -> None:
    assert await bench.answer(bench.request())


async def test_a_reply_waits_for_the_queue_that_a_cluster_has_not_brought_back_yet(bench: Bench) -> None:
    bench.is_whole = False
    answering = asyncio.create_task(bench.answer(bench.request()))
    await bench.asked.wait()
    bench.asked.clear()
    await bench.asked.wait()
    assert not answering.done()
    await bench.broker.declare_reply_queue("late", timedelta(minutes=1), [(TOPOLOGY.replies_exchange, "#")])
    inbox = Inbox()
    await bench.broker.consume("late", 1, inbox)
    [reply] = await inbox.wait_for(1)
    assert reply.body == b"reply"
    assert await answering


async def test_the_wait_ends_once_the_broker_is_whole(bench: Bench) -> None:
    bench.is_whole = False
    answering = asyncio.create_task(bench.answer(bench.request("ns.reply.gone")))
    await bench.asked.wait()
    bench.is_whole = True
    assert await answering


async def test_an_exclusive_queue_is_not_waited_for(bench: Bench) -> None:
    bench.is_whole = False
    assert await bench.answer(bench.request("amq.gen-gone"))
    assert not bench.asked.is_set()
