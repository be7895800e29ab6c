"""A worker asks an edge for an attachment: what comes back, what a missing edge says, what survives a lost link.

On both brokers where the promise alone is looked at; faults of a network on RabbitMQ.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from interfaces.attachment_requests import AT_A_TIME, AttachmentRequests, EdgeResolver
from interfaces.attachment_store import AttachmentStore
from interfaces.brokers import Broker, Outgoing, Properties
from interfaces.brokers.opening import open_broker
from interfaces.errors import AttachmentMissing, AttachmentStoreUnavailable, AttachmentTooLarge, EdgeUnavailable
from interfaces.references import Reference
from interfaces.topology import Topology
from tests.conformance.broker_probes import holds_messages
from tests.integration.faults import linked, until

FILES = {"small": b"bytes of the messenger", "large": b"x" * 2_000_000}
Fetch = Callable[[str], Awaitable[bytes]]


async def fetch(identity: str) -> bytes:
    """The messenger."""
    if identity not in FILES:
        raise ValueError(f"no file {identity!r}")
    return FILES[identity]


@pytest.fixture(params=["memory", "rabbitmq"])
async def seam(request: pytest.FixtureRequest, amqp_url: str, namespace: str) -> AsyncIterator[Broker]:
    broker = open_broker(amqp_url if request.param == "rabbitmq" else f"memory://{namespace}")
    await broker.open()
    yield broker
    await broker.delete_queue(edge_queue(namespace))
    await broker.close()


def edge_queue(namespace: str) -> str:
    return Topology(namespace).edge_queue("telegram")


@pytest.fixture
def store(tmp_path: Path) -> AttachmentStore:
    return AttachmentStore(tmp_path.as_uri(), max_bytes=1_000_000, ttl=3600)


@asynccontextmanager
async def edge(broker: Broker, namespace: str, store: AttachmentStore, fetch: Fetch = fetch) -> AsyncIterator[None]:
    async def give(identity: str) -> Reference:
        return await store.put(await fetch(identity))

    requests = AttachmentRequests(broker, Topology(namespace), "telegram", give)
    serving = asyncio.create_task(requests.run())
    try:
        async with asyncio.timeout(20):
            while (state := await broker.queue_state(edge_queue(namespace))) is None or not state.consumers:  # noqa: ASYNC110 - to be asked
                await asyncio.sleep(0.01)
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@asynccontextmanager
async def resolver(broker: Broker, namespace: str) -> AsyncIterator[EdgeResolver]:
    resolver = EdgeResolver(broker, Topology(namespace))
    try:
        yield resolver
    finally:
        await resolver.close()


async def test_the_reference_leads_to_the_messengers_bytes(
    seam: Broker, namespace: str, store: AttachmentStore
) -> None:
    async with edge(seam, namespace, store), resolver(seam, namespace) as worker:
        references = await asyncio.gather(*(worker.resolve("telegram", "small") for _ in range(20)))
        assert len(set(references)) == 1
        assert await store.get(references[0]) == FILES["small"]


async def test_what_the_edge_cannot_give_is_said_with_its_reason(
    seam: Broker, namespace: str, tmp_path: Path, store: AttachmentStore
) -> None:
    async with edge(seam, namespace, store), resolver(seam, namespace) as worker:
        with pytest.raises(AttachmentMissing, match=r"edge 'telegram', attachment 'unknown': ValueError: no file"):
            await worker.resolve("telegram", "unknown")
        with pytest.raises(AttachmentTooLarge, match="2000000 bytes, and 1000000 are allowed"):
            await worker.resolve("telegram", "large")
        store.url = (tmp_path / "no\0place").as_uri()
        with pytest.raises(AttachmentStoreUnavailable):
            await worker.resolve("telegram", "small")


async def test_without_an_edge_the_error_names_the_queue_and_what_to_start(
    seam: Broker, namespace: str, store: AttachmentStore
) -> None:
    async with resolver(seam, namespace) as worker:
        began = time.monotonic()
        with pytest.raises(EdgeUnavailable, match=r"none has been there for an hour .*edge\.telegram.*--name telegram"):
            await worker.resolve("telegram", "small")
        assert time.monotonic() - began < 10
        await seam.declare_reply_queue(edge_queue(namespace), timedelta(hours=1))
        with pytest.raises(EdgeUnavailable, match=r"within 0.3 s \(none on queue .*start one with `switchboard edge"):
            await worker.resolve("telegram", "small", timeout=0.3)


async def test_an_edge_that_comes_in_time_answers_and_what_is_too_late_is_gone(
    seam: Broker, namespace: str, store: AttachmentStore
) -> None:
    fetched: list[str] = []

    async def noting(identity: str) -> bytes:
        fetched.append(identity)
        return await fetch(identity)

    await seam.declare_reply_queue(edge_queue(namespace), timedelta(hours=1))
    async with resolver(seam, namespace) as worker:
        with pytest.raises(EdgeUnavailable):
            await worker.resolve("telegram", "large", timeout=0.2)
        await holds_messages(seam, edge_queue(namespace), 0)
        asking = asyncio.create_task(worker.resolve("telegram", "small"))
        await holds_messages(seam, edge_queue(namespace), 1)
        async with edge(seam, namespace, store, noting):
            assert await store.get(await asking) == FILES["small"]
    assert fetched == ["small"]


async def test_no_more_are_fetched_at_a_time_than_memory_allows(
    seam: Broker, namespace: str, store: AttachmentStore
) -> None:
    fetching = most = 0
    let_go = asyncio.Event()

    async def slow(identity: str) -> bytes:
        nonlocal fetching, most
        fetching += 1
        most = max(most, fetching)
        await let_go.wait()
        fetching -= 1
        return identity.encode()

    async with edge(seam, namespace, store, slow), resolver(seam, namespace) as worker:
        asking = [asyncio.create_task(worker.resolve("telegram", str(number))) for number in range(10)]
        await until(lambda: fetching == AT_A_TIME, "the first are fetched")
        let_go.set()
        references = await asyncio.gather(*asking)
        assert [await store.get(reference) for reference in references] == [b"%d" % number for number in range(10)]
    assert most == AT_A_TIME


async def test_what_is_no_request_and_whom_nobody_may_answer_hold_up_nothing(
    seam: Broker, namespace: str, store: AttachmentStore, caplog: pytest.LogCaptureFixture
) -> None:
    topology = Topology(namespace)
    async with edge(seam, namespace, store), resolver(seam, namespace) as worker:
        await worker.resolve("telegram", "small")
        mine = worker._inbox.queue
        junk = Outgoing("", edge_queue(namespace), b"{}", Properties(message_id="1", reply_to=mine))
        for body in (b"{}", b"not JSON", b'{"version": 2, "id": "small"}', b'{"version": 1, "id": ""}'):
            await seam.publish(replace(junk, body=body))
        elsewhere = replace(junk.properties, reply_to=topology.dead)
        await seam.publish(replace(junk, body=b'{"version": 1, "id": "small"}', properties=elsewhere))
        gone = replace(junk.properties, reply_to=f"{topology.reply_prefix}gone")
        await seam.publish(replace(junk, body=b'{"version": 1, "id": "small"}', properties=gone))
        assert await store.get(await worker.resolve("telegram", "small")) == FILES["small"]
        await until(lambda: "whoever asked is gone" in caplog.text, "the asker is found to be gone")
    assert f"no queue that it may be answered to: {topology.dead!r}" in caplog.text
    assert (await seam.queue_state(topology.dead)) is None


async def test_closing_fails_the_calls_that_wait(seam: Broker, namespace: str, store: AttachmentStore) -> None:
    async def never(identity: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with edge(seam, namespace, store, never), resolver(seam, namespace) as worker:
        asking = asyncio.create_task(worker.resolve("telegram", "small", timeout=2))
        await until(lambda: worker._inbox.is_listening, "it listens")
        await worker.close()
        with pytest.raises(EdgeUnavailable):
            await asking


@pytest.mark.parametrize("whose", ["edge", "worker"])
async def test_requests_outlive_their_connections(
    amqp_url: str, namespace: str, broker: Broker, store: AttachmentStore, whose: str
) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    async def slow(identity: str) -> bytes:
        started.set()
        await let_go.wait()
        return identity.encode()

    async with linked(amqp_url) as links:
        of_edge, of_worker = (links.broker, broker) if whose == "edge" else (broker, links.broker)
        async with edge(of_edge, namespace, store, slow), resolver(of_worker, namespace) as worker:
            asking = asyncio.create_task(worker.resolve("telegram", "abc", timeout=60))
            await started.wait()
            before = [proxy.accepted for proxy in links.named("both")]
            for proxy in links.named("both"):
                await proxy.cut()
            let_go.set()
            assert await store.get(await asking) == b"abc"
            assert [proxy.accepted for proxy in links.named("both")] > before
    await broker.delete_queue(edge_queue(namespace))
