"""Encrypted dialogs on real servers: nothing said is in RabbitMQ or Redis, repeats are the same bytes, keys change."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from interfaces import BrokerClient, Keys
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import ExitCode, Reason
from interfaces.reply_bodies import decode_reply
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.dead_command import DeadCommand
from tests.integration.wire import Seen, Wire
from worker.dead_letters import new_id

pytestmark = pytest.mark.timeout(180)

MARKER = "Xylophon4711"
TELLING = "tests.bots.telling:bot"
PIPELINE = "tests.bots.chatsky_counting:pipeline"
K1, K2 = (f"k{number}:{base64.b64encode(bytes([number]) * 64).decode()}" for number in (1, 2))


@pytest.fixture
def worker_settings(worker_settings: dict[str, str]) -> dict[str, str]:
    return worker_settings | {"SWITCHBOARD_ENCRYPTION_KEYS": K1, "SWITCHBOARD_ATTEMPTS": "1"}


@asynccontextmanager
async def client_with(amqp_url: str, topology: Topology, text: str) -> AsyncIterator[BrokerClient]:
    async with BrokerClient(amqp_url, namespace=topology.namespace, keys=Keys.parse(text)) as client:
        yield client


async def said(client: BrokerClient, text: str, ctx_id: str = "ada", **more: str) -> str | None:
    reply = await client.ask(text, ctx_id, **more)  # type: ignore[arg-type]  # a request id
    assert reply.message is not None, reply.error
    return reply.message.text


async def stored(redis_url: str, namespace: str) -> dict[bytes, bytes]:
    """All that Redis holds of a namespace: each key's whole content, whatever its type, as Redis itself dumps it."""
    async with Redis.from_url(redis_url) as redis:
        await redis.config_set("rdbcompression", "no")  # compressed, a marker would not be found
        try:
            return {key: await redis.dump(key) or b"" async for key in redis.scan_iter(match=f"{namespace}:*")}
        finally:
            await redis.config_set("rdbcompression", "yes")


async def waiting(wire: Wire, queue: str, count: int) -> list[Seen]:
    async def are_there() -> bool:
        return await wire.count(queue) == count

    await eventually(are_there, f"{count} messages in {queue}")
    return await wire.take_all(queue)


@pytest.mark.parametrize("app", [TELLING, PIPELINE], ids=["handler", "pipeline"])
async def test_nothing_that_is_said_is_in_rabbitmq_or_redis(
    app: str,
    amqp_url: str,
    redis_url: str,
    broker: RabbitMQBroker,
    topology: Topology,
    wire: Wire,
    start_worker: StartWorker,
) -> None:
    worker = await (await start_worker(app)).ready()
    replies = await wire.listen(topology.replies_exchange)
    requests = await wire.listen(topology.requests_exchange, str(slot("ada")))
    async with client_with(amqp_url, topology, K1) as client:
        for number in range(1, 4):
            assert MARKER in (await said(client, f"{MARKER} {number}") or "")
        repeated = [await client.send(MARKER, "bob", request_id="r1") for _ in range(3)]
        if app == TELLING:
            failed = await client.ask(f"raise {MARKER}", "bob")
            assert (failed.ctx_id, failed.error and failed.error.code) == ("bob", Reason.HANDLER_FAILED)
        seen = await waiting(wire, replies, len(repeated))
        assert len({each.body for each in seen}) == 1
        assert decode_reply(seen[0].body, Keys.parse(K1)).request_id == "r1"
        assert await worker.stop() == 0
        seen += await waiting(wire, requests, 3)
        if app == TELLING:
            seen += await waiting(wire, topology.dead, 1)
    assert [each.body for each in seen if MARKER.encode() in each.body] == []
    assert [each.properties for each in seen if MARKER in str(each.properties.headers)] == []
    kept = await stored(redis_url, topology.namespace)
    assert {key.rpartition(b":")[2] for key in kept} >= {b"{ada}", b"{bob}"}
    assert [key for key, content in kept.items() if MARKER.encode() in content] == []


async def test_what_is_looked_for_would_be_found_in_plain(
    amqp_url: str, redis_url: str, topology: Topology, start_worker: StartWorker
) -> None:
    await (await start_worker(TELLING, encryption_keys="")).ready()
    async with client_with(amqp_url, topology, "") as client:
        await said(client, MARKER)
    kept = await stored(redis_url, topology.namespace)
    assert [key for key, content in kept.items() if MARKER.encode() in content] != []


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(["", f"plain,{K1}", f"{K1},plain", K1], marks=pytest.mark.long),
        [K1, f"{K1},{K2}", f"{K2},{K1}", K2],
    ],
    ids=["beginning", "rotation"],
)
async def test_keys_change_step_by_step_with_workers_and_clients_a_step_apart(
    steps: list[str], amqp_url: str, topology: Topology, start_worker: StartWorker
) -> None:
    turn = 0
    for old, new in pairwise(steps):
        for of_worker, of_client in ((old, new), (new, old), (new, new)):
            worker = await (await start_worker(TELLING, encryption_keys=of_worker, max_turns=1)).ready()
            async with client_with(amqp_url, topology, of_client) as client:
                turn += 1
                assert await said(client, MARKER) == f"{turn}: {MARKER}"
            assert await worker.stop() == 0
    last = await (await start_worker(TELLING, encryption_keys=steps[-1], max_turns=1, history=1)).ready()
    async with client_with(amqp_url, topology, steps[-1]) as client:
        assert await said(client, MARKER) == f"{turn + 1}: {MARKER}"
    assert await last.stop() == 0


async def test_a_request_in_plain_is_a_dead_letter_and_its_sender_is_told(
    amqp_url: str, topology: Topology, client: BrokerClient, start_worker: StartWorker
) -> None:
    await (await start_worker(TELLING)).ready()
    reply = await client.ask(MARKER, "ada")
    assert reply.error is not None
    assert (reply.error.code, reply.ctx_id) == (Reason.NOT_DECRYPTED, None)
    async with client_with(amqp_url, topology, K2) as other:
        reply = await other.ask(MARKER, "ada")
    assert reply.error is not None
    assert reply.error.code == Reason.NOT_DECRYPTED


async def test_commands_read_what_is_encrypted_where_they_have_the_keys(
    amqp_url: str, topology: Topology, start_worker: StartWorker, worker_settings: dict[str, str]
) -> None:
    await (await start_worker(TELLING)).ready()
    context, dead = DeadCommand(worker_settings, "context"), DeadCommand(worker_settings)
    async with client_with(amqp_url, topology, K1) as client:
        await said(client, f"say {MARKER}")
        failed = await client.ask(f"raise {MARKER}", "ada", request_id="fails")
        assert failed.error is not None
        assert MARKER in (await context("show", "ada")).out
        assert MARKER in (await dead("show", "fails")).out
        without = await dead("show", "fails", SWITCHBOARD_ENCRYPTION_KEYS="")
        assert MARKER not in without.out
        assert "SWITCHBOARD_ENCRYPTION_KEYS is not set here" in without.err
        await context("show", "ada", code=ExitCode.FAILED, SWITCHBOARD_ENCRYPTION_KEYS=K2)
        lines = [json.loads(line) for line in (await context("export", "ada")).out.splitlines()]
        told = {line["kind"]: json.dumps(line["content"]) for line in lines if "content" in line}
        assert {kind for kind, content in told.items() if MARKER in content} >= {"turn", "reply", "dead letter"}
        assert [letter["ctx_id"] for letter in await dead.listed(SWITCHBOARD_ENCRYPTION_KEYS="")] == ["ada"]

        await dead("replay", "fails", "--run-again", code=ExitCode.FAILED, SWITCHBOARD_ENCRYPTION_KEYS="")
        await dead("replay", "fails", "--run-again")

        async def has_failed_again() -> bool:
            letters = [(letter["request_id"], letter["reason"]) for letter in await dead.listed()]
            return letters == [(new_id("fails"), Reason.HANDLER_FAILED)]  # and not that it could not be read

        await eventually(has_failed_again, "the dead letter of the request that ran again")
