"""A consumer that was lost and came back at once tells that the broker is whole; after a longer loss it takes time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from interfaces import consumers
from interfaces.brokers import Channel, Delivery
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.consumers import KeptConsumer
from tests.integration.faults import until

QUEUE = "switchboard.reply.test"


class ObservedBroker(MemoryBroker):
    """Keeps the channels it opened."""

    def __init__(self) -> None:
        super().__init__(MemoryServer())
        self.channels: list[Channel] = []

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        self.channels.append(await super().consume(queue, prefetch, deliver))
        return self.channels[-1]


@pytest.mark.parametrize(("restart_seconds", "is_settled"), [(60.0, True), (0.0, False)], ids=["brief", "long"])
async def test_only_a_loss_as_long_as_a_restart_makes_a_consumer_unsettled(
    restart_seconds: float, is_settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "RESTART_SECONDS", restart_seconds)
    broker = ObservedBroker()
    await broker.open()

    async def declare() -> None:
        await broker.declare_reply_queue(QUEUE, timedelta(hours=1))

    await declare()
    kept = KeptConsumer(broker, QUEUE, 1, lambda _: None, declare=declare)
    running = asyncio.create_task(kept.run())
    await kept.wait_consuming()
    assert kept.is_settled(60)
    await broker.channels[0].close()
    await until(lambda: len(broker.channels) == 2 and kept.is_open, "the queue is consumed again")
    assert kept.is_settled(60) is is_settled
    assert kept.is_settled(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.close()
