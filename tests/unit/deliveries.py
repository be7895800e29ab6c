"""Deliveries for unit tests, without a broker behind them."""

from typing import Any

from interfaces.brokers import Delivery, Properties


class StubChannel:
    """A `Channel` that notes what is acknowledged on it."""

    queue = "stub"

    def __init__(self) -> None:
        self.acked: list[Delivery] = []
        self.is_open = True
        self.unsettled: dict[int, float] = {}

    async def wait_closed(self) -> None:
        raise NotImplementedError

    async def verify(self) -> bool:
        return self.is_open

    async def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery)

    async def close(self) -> None:
        self.is_open = False


def delivery(body: bytes = b"body", **properties: Any) -> Delivery:
    """A delivery as it comes from a request queue of namespace `ns`."""
    return Delivery(
        body=body,
        properties=Properties(**properties),
        exchange="ns.requests",
        routing_key="7",
        redelivered=False,
        delivery_count=0,
        tag=1,
        channel=StubChannel(),
    )
