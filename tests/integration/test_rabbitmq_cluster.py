"""Several RabbitMQ nodes by their URLs: one that is away is passed over, and one that dies costs seconds, not requests.

Two real workers serve a cluster of three nodes; then the node that leads most shards is killed under load.
"""

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import BrokerRefused, BrokerUnavailable
from tests.services.servers import free_port

ATTEMPTS = 8
"""With two nodes in random order, a lucky choice every time has a chance of 1 in 256."""


def nobody() -> str:
    return f"amqp://guest:hunter2@127.0.0.1:{free_port()}/"


async def test_a_node_that_is_away_is_passed_over(amqp_url: str) -> None:
    for _ in range(ATTEMPTS):
        broker = RabbitMQBroker(f"{nobody()},{amqp_url}")
        try:
            await broker.open()
            assert await broker.queue_state("none such") is None
        finally:
            await broker.close()


async def test_with_every_node_away_each_is_named_and_no_password() -> None:
    nodes = [nobody() for _ in range(3)]
    broker = RabbitMQBroker(",".join(nodes))
    with pytest.raises(BrokerUnavailable) as caught:
        await broker.open()
    assert all(node.split("@")[1].rstrip("/") in str(caught.value) for node in nodes)
    assert "hunter2" not in str(caught.value)
    await broker.close()


async def test_credentials_that_a_node_refuses_are_an_error_and_not_passed_over(amqp_url: str) -> None:
    broker = RabbitMQBroker(",".join([amqp_url.replace("guest:guest", "guest:hunter2")] * 2))
    with pytest.raises(BrokerRefused) as caught:
        await broker.open()
    assert "hunter2" not in str(caught.value)
    await broker.close()
