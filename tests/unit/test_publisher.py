"""Publishes that wait for their channel: one attempt to open it is for all of them, whatever becomes of it."""

import asyncio
import socket

import pytest

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.link import Link
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import BrokerUnavailable

WAITING = 300
MESSAGE = Outgoing("", "anywhere", b"", Properties(message_id="m"))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """Attempts to connect."""
    attempts: list[Link] = []
    get = Link.get

    async def noted(link: Link) -> object:
        attempts.append(link)
        return await get(link)

    monkeypatch.setattr(Link, "get", noted)
    return attempts


@pytest.fixture
def nobody() -> RabbitMQBroker:
    """A broker at a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return RabbitMQBroker(f"amqp://127.0.0.1:{port}", connect_timeout=5)


async def test_all_who_wait_fail_with_one_attempt_each_with_an_error_of_its_own(
    nobody: RabbitMQBroker, attempts: list[Link]
) -> None:
    found = await asyncio.gather(*(nobody.publish(MESSAGE) for _ in range(WAITING)), return_exceptions=True)
    assert all(isinstance(error, BrokerUnavailable) for error in found)
    assert len(set(map(str, found))) == 1
    assert len(set(map(id, found))) == WAITING
    assert len(attempts) == 1


async def test_where_the_one_that_opens_is_cancelled_the_next_one_opens(
    nobody: RabbitMQBroker, attempts: list[Link]
) -> None:
    first, *others = [asyncio.create_task(nobody.publish(MESSAGE)) for _ in range(3)]
    while not attempts:  # noqa: ASYNC110 - the first one is between two steps of its own
        await asyncio.sleep(0)
    first.cancel()
    found = await asyncio.gather(first, *others, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(error, BrokerUnavailable) for error in found[1:])
    assert len(attempts) == 2
