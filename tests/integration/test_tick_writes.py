"""How many writes a tick takes on a real RabbitMQ, and that all goes as well where it is one for each message."""

import asyncio
from typing import Any

import pytest
from aiormq.abc import ChannelFrame

from interfaces.brokers import Outgoing, Properties, publisher, rabbitmq
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import PublishTimeout, Unroutable
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox, in_decimal
from tests.integration.conftest import Report

MESSAGES = 200
PREFETCH = 50
REPETITIONS = 10


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[ChannelFrame]:
    """What is handed to a connection's writer."""
    frames: list[ChannelFrame] = []
    put = asyncio.Queue.put_nowait

    def noted(queue: "asyncio.Queue[Any]", item: Any) -> None:
        if isinstance(item, ChannelFrame):
            frames.append(item)
        put(queue, item)

    monkeypatch.setattr(asyncio.Queue, "put_nowait", noted)
    return frames


async def exchange(broker: RabbitMQBroker, namespace: str, written: list[ChannelFrame]) -> tuple[int, int]:
    """Publish in one tick, acknowledge all in one; how many writes each took."""
    topology = Topology(namespace, 1)
    await broker.apply(topology)
    queue = topology.shard_queue(0)
    await broker.publish(Outgoing("", queue, b"first", Properties(message_id="first")))
    written.clear()
    messages = [Outgoing("", queue, b"%d" % n, Properties(message_id=f"m{n}")) for n in range(MESSAGES)]
    await asyncio.gather(*(broker.publish(message) for message in messages))
    publishes = len(written)
    inbox = Inbox()
    channel = await broker.consume(queue, PREFETCH, inbox)
    deliveries = await inbox.wait_for(PREFETCH)
    written.clear()
    for delivery in deliveries:
        await channel.ack(delivery)
    await inbox.wait_for(2 * PREFETCH)  # What comes now is the proof that they were taken.
    acknowledgements = len(written)
    for done in range(PREFETCH, MESSAGES, PREFETCH):
        for delivery in (await inbox.wait_for(done + PREFETCH))[done:]:
            await channel.ack(delivery)
    await inbox.wait_for(MESSAGES + 1)
    assert inbox.bodies[1:] == in_decimal(range(MESSAGES))
    with pytest.raises(Unroutable):
        await broker.publish(Outgoing("", "nowhere", b"", Properties(message_id="astray")))
    return publishes, acknowledgements


async def test_what_a_tick_has_to_say_is_one_write(
    broker: RabbitMQBroker, namespace: str, written: list[ChannelFrame]
) -> None:
    publishes, acknowledgements = await exchange(broker, namespace, written)
    assert (publishes, acknowledgements) == (1, 1)


async def test_where_the_library_keeps_other_books_everything_goes_one_by_one(
    broker: RabbitMQBroker, namespace: str, written: list[ChannelFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (publisher, rabbitmq):
        monkeypatch.setattr(module, "can_write", lambda _: False)
    monkeypatch.setattr(rabbitmq, "deliver_directly", lambda *_: False)
    publishes, acknowledgements = await exchange(broker, namespace, written)
    assert (publishes, acknowledgements) == (MESSAGES, PREFETCH)


async def test_a_publish_whose_confirm_does_not_come_in_time_fails_and_the_next_has_a_new_channel(
    amqp_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = RabbitMQBroker(amqp_url, publish_timeout=0.2)
    await impatient.open()
    try:
        await impatient.apply(topology := Topology(namespace, 1))
        message = Outgoing("", topology.shard_queue(0), b"1", Properties(message_id="m1"))
        await impatient.publish(message)
        held = impatient._publisher._current
        assert held is not None
        monkeypatch.setattr(held.raw, "_on_confirm_frame", _lost)
        with pytest.raises(PublishTimeout):
            await impatient.publish(message)
        await impatient.publish(message)
        assert impatient._publisher._current is not held
    finally:
        await impatient.close()


async def _lost(_: object) -> None:
    """A confirm that never comes."""


async def test_those_who_waited_for_the_channel_go_on_together(
    amqp_url: str, namespace: str, written: list[ChannelFrame], report: Report
) -> None:
    """One after the other they would be a convoy: whoever comes meanwhile goes to its end, so it lasts for good."""
    broker = RabbitMQBroker(amqp_url)
    await broker.open()
    try:
        topology = Topology(namespace, 1)
        await broker.apply(topology)
        queue = topology.shard_queue(0)
        written.clear()

        async def speak(speaker: int) -> None:
            for number in range(REPETITIONS):
                properties = Properties(message_id=f"{speaker}-{number}")
                await broker.publish(Outgoing("", queue, b"%d" % speaker, properties))

        await asyncio.gather(*(speak(speaker) for speaker in range(MESSAGES)))
    finally:
        await broker.close()
    frames = sum(frame.drain_future is not None for frame in written)
    report(f"{MESSAGES * REPETITIONS} publishes took {frames} writes")
    assert frames < MESSAGES * REPETITIONS / 10
