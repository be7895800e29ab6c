"""What no worker may run goes to the dead letters untouched, its sender is told, and good messages go on."""

import asyncio
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import Reason
from interfaces.reply_bodies import decode_reply
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.integration.bad_requests import CTX, BadRequest, BadRequests, Bomb
from tests.integration.conftest import Report, StartWorker
from tests.integration.wire import Seen, Wire

BOT = "tests.bots.counting:answer"
GOOD_EVERY = 5
PROPERTIES = {field.name for field in fields(Properties)}
ADDED = {"reason", "detail", "attempts", "worker", "failed-at", "exchange", "routing-key"}


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "unpickled")


@pytest.fixture
async def reply_queue(wire: Wire, topology: Topology) -> str:
    """A queue of ours that may be replied to."""
    return await wire.new_queue(f"{topology.reply_prefix}of-the-test")


@pytest.fixture
async def forbidden_queue(wire: Wire, namespace: str) -> str:
    """A queue that exists, and that a stranger names as the one to reply to."""
    return await wire.new_queue(f"{namespace}-of-somebody-else")


@pytest.fixture
def bad_requests(topology: Topology, reply_queue: str, forbidden_queue: str, bomb: Bomb) -> list[BadRequest]:
    return BadRequests(topology, reply_queue, forbidden_queue, bomb).all()


def is_told(bad: BadRequest) -> bool:
    """Whether its sender gets an error reply."""
    return bad.reason is not Reason.BAD_REPLY_TO


async def take(wire: Wire, queue: str, count: int) -> list[Seen]:
    """Take `count` messages from a queue, which then is empty."""

    async def arrived() -> bool:
        return await wire.count(queue) >= count

    await eventually(arrived, f"{count} messages on {queue}")
    return await wire.take_all(queue)


def assert_untouched(dead: Seen, bad: BadRequest, moved: Iterable[str] = ()) -> None:
    """Body and properties are the request's; headers say why it is here, where it was, and what was `moved`."""
    sent = bad.request
    assert dead.body == sent.body
    for name in PROPERTIES - {"headers", *(name.replace("-", "_") for name in moved)}:
        assert getattr(dead.properties, name) == getattr(sent.properties, name), name
    headers, original = dead.properties.headers or {}, sent.properties.headers or {}
    assert {name: headers[name] for name in original} == original
    # The quorum queue it now is on says how often it was delivered from there.
    added = headers.keys() - original.keys() - {"x-delivery-count"}
    assert added == {f"x-switchboard-{name}" for name in [*ADDED, *moved]}
    assert headers["x-switchboard-reason"] == bad.reason
    assert headers["x-switchboard-detail"]
    assert headers["x-switchboard-exchange"] == sent.exchange
    assert headers["x-switchboard-routing-key"] == sent.routing_key


async def publish_between_good_ones(
    broker: RabbitMQBroker, client: BrokerClient, bad_requests: Iterable[BadRequest]
) -> list[str | None]:
    """Publish the bad ones with good ones before, between and behind them; the replies to the good ones."""
    asked: list[asyncio.Task[str | None]] = []

    async def ask() -> str | None:
        reply = await client.ask("hello", CTX)
        return reply.message.text if reply.message else None

    for number, bad in enumerate(bad_requests):
        if number % GOOD_EVERY == 0:
            asked.append(asyncio.create_task(ask()))
        await broker.publish(bad.request)
    asked.append(asyncio.create_task(ask()))
    return await asyncio.gather(*asked)


async def test_each_is_a_dead_letter_with_its_reason_while_good_requests_are_answered(
    bad_requests: list[BadRequest],
    topology: Topology,
    broker: RabbitMQBroker,
    client: BrokerClient,
    wire: Wire,
    bomb: Bomb,
    start_worker: StartWorker,
    report: Report,
) -> None:
    worker = await (await start_worker(BOT)).ready()

    good = await publish_between_good_ones(broker, client, bad_requests)
    dead = await take(wire, topology.dead, len(bad_requests))

    assert good == [f"{number}: hello" for number in range(1, len(good) + 1)]
    found = {seen.properties.message_id: seen for seen in dead}
    assert len(dead) == len(found) == len(bad_requests)
    for bad in bad_requests:
        assert_untouched(found[bad.name], bad)
    assert not bomb.path.exists()
    assert worker.is_running
    assert await worker.stop() == 0, worker.log
    reasons = {bad.reason for bad in bad_requests}
    report(f"{len(bad_requests)} bad requests with {len(reasons)} reasons, {len(good)} good ones between them")


async def test_each_sender_that_may_be_replied_to_is_told_the_reason(
    bad_requests: list[BadRequest],
    broker: RabbitMQBroker,
    wire: Wire,
    reply_queue: str,
    forbidden_queue: str,
    topology: Topology,
    start_worker: StartWorker,
) -> None:
    worker = await (await start_worker(BOT)).ready()
    for bad in bad_requests:
        await broker.publish(bad.request)
    told = [bad for bad in bad_requests if is_told(bad)]
    replies = {seen.properties.correlation_id: seen for seen in await take(wire, reply_queue, len(told))}
    assert await worker.stop() == 0, worker.log  # So that nothing is still on its way to a queue below.

    assert replies.keys() == {bad.request.properties.correlation_id for bad in told}
    for bad in told:
        seen = replies[bad.request.properties.correlation_id]
        reply = decode_reply(seen.body)
        assert (reply.status, reply.request_id, reply.turn, reply.message) == ("error", bad.name, 0, None)
        assert reply.error is not None
        assert reply.error.code == bad.reason, bad.name
        assert reply.error.detail
    assert await wire.count(forbidden_queue) == 0
    assert len(await wire.take_all(topology.dead)) == len(bad_requests)


async def test_a_bare_request_gains_no_property_on_its_way_to_the_dead_letters(
    topology: Topology, broker: RabbitMQBroker, wire: Wire, start_worker: StartWorker
) -> None:
    await start_worker(BOT)
    bare = BadRequest(Reason.BAD_MESSAGE_ID, Outgoing(topology.requests_exchange, "0", b"hello", Properties()))
    await broker.publish(bare.request)
    [dead] = await take(wire, topology.dead, 1)
    assert_untouched(dead, bare)


async def test_expiration_and_user_id_travel_as_headers_of_the_dead_letter(
    bad_requests: list[BadRequest],
    topology: Topology,
    amqp_url: str,
    broker: RabbitMQBroker,
    wire: Wire,
    start_worker: StartWorker,
) -> None:
    """As properties the one would delete the dead letter, and the other is refused by the broker for another's user."""
    await start_worker(BOT)
    user = urlsplit(amqp_url).username or "guest"
    request = bad_requests[0].request
    properties = replace(request.properties, expiration="600000", user_id=user)
    bad = replace(bad_requests[0], request=replace(request, properties=properties))
    await broker.publish(bad.request)
    [dead] = await take(wire, topology.dead, 1)

    assert_untouched(dead, bad, moved=("expiration", "user-id"))
    headers = dead.properties.headers or {}
    assert headers["x-switchboard-expiration"] == "600000"
    assert headers["x-switchboard-user-id"] == user
    assert dead.properties.expiration is None
    assert dead.properties.user_id is None
