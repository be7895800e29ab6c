"""What is kept of a dialog can be handed over and deleted, goes by itself, and is in no log."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import ExitCode, Reason
from interfaces.messages import Document, Message
from interfaces.references import Reference
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.dead_command import DeadCommand, buried, publish_all
from tests.integration.wire import Wire
from tests.services.processes import WorkerProcess
from worker.dead_lines import read_line
from worker.stores import Outbox
from worker.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(180)

MARKER = "Xylophon4711"
TELLING = "tests.bots.telling:bot"
PIPELINE = "tests.bots.chatsky_counting:pipeline"
KEPT = Reference("ab" * 32, 5)


@pytest.fixture
def context(worker_settings: dict[str, str]) -> DeadCommand:
    return DeadCommand(worker_settings, "context")


@pytest.fixture
def dead(worker_settings: dict[str, str]) -> DeadCommand:
    return DeadCommand(worker_settings)


async def talk(client: BrokerClient, ctx_id: str, *texts: str) -> None:
    for text in texts:
        await client.ask(Message(text, attachments=[Document(id=str(KEPT))]), ctx_id)


def records(lines: str, kind: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, lines.splitlines()) if record["kind"] == kind]


async def test_all_that_is_kept_of_a_dialog_is_exported(
    broker: RabbitMQBroker,
    topology: Topology,
    client: BrokerClient,
    start_worker: StartWorker,
    context: DeadCommand,
    tmp_path: Path,
) -> None:
    worker = await (await start_worker(TELLING)).ready()
    await talk(client, "ada", *(f"{MARKER} {number}" for number in range(1, 4)))
    await talk(client, "bob", "another's")
    assert (await client.ask("raise it", "ada")).error is not None
    await publish_all(broker, [buried(topology, "bob", "another's")])
    assert await worker.stop() == 0
    waiting = Outgoing(topology.requests_exchange, str(slot("ada")), b"waits", Properties(message_id="w"))
    await broker.publish(waiting)

    file = tmp_path / "ada.jsonl"
    told = (await context("export", "ada", str(file))).err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text()
    [main] = records(lines, "context")
    assert (main["ctx_id"], main["version"], main["content"]["misc"]) == ("ada", 3, {"said": f"{MARKER} 3"})
    turns = records(lines, "turn")
    assert [turn["turn"] for turn in turns] == [1, 2, 3]
    assert [turn["content"]["request"]["text"] for turn in turns] == [f"{MARKER} {number}" for number in (1, 2, 3)]
    replies = records(lines, "reply")
    assert [reply["content"]["turn"] for reply in replies] == [1, 2, 3]
    assert all(reply["content"]["request_id"] == reply["request_id"] for reply in replies)
    [letter] = records(lines, "dead letter")
    assert b"raise it" in read_line(json.dumps(letter["letter"])).body  # as `switchboard dead import` takes it
    assert records(lines, "attachment") == [{"kind": "attachment", "reference": str(KEPT), "size": 5}]
    [queue] = records(lines, "waiting")
    assert (queue["queue"], queue["messages_of_all_contexts"]) == (topology.queue_of(slot("ada")), 1)
    assert "another's" not in lines
    assert f"{KEPT} stays until it expires (SWITCHBOARD_ATTACHMENTS_TTL)" in told
    assert "1 requests wait in queue" in told


async def test_all_that_is_kept_of_a_dialog_is_deleted_and_nothing_else(
    broker: RabbitMQBroker,
    topology: Topology,
    client: BrokerClient,
    start_worker: StartWorker,
    context: DeadCommand,
    dead: DeadCommand,
    redis_url: str,
    store: RedisStore,
) -> None:
    worker = await (await start_worker(TELLING)).ready()
    for ctx_id in ("ada", "bob"):
        await talk(client, ctx_id, "first", "second")
    await publish_all(broker, [buried(topology, ctx_id, str(n)) for n in (1, 2) for ctx_id in ("ada", "bob")])

    shown = await context("delete", "ada", "--dry-run")
    assert "version      2\nreplies      2\ndead letters 2\nattachments  1\n" in shown.out
    assert "ada-1" in shown.out
    assert "nothing was changed" in shown.out
    assert str(KEPT) in shown.err
    await context("delete", "ada", code=ExitCode.USAGE)
    assert len(await dead.listed()) == 4
    assert await store.peek("ada", 1) is not None

    await context("delete", "ada", "--yes")
    async with Redis.from_url(redis_url) as redis:
        assert [key async for key in redis.scan_iter(match=f"{topology.namespace}:*ada*")] == []
        assert [key async for key in redis.scan_iter(match=f"{topology.namespace}:*bob*")] != []
    assert [letter["request_id"] for letter in await dead.listed()] == ["bob-1", "bob-2"]
    assert (await store.read_outbox("ada"), len((await store.read_outbox("bob")).replies)) == (Outbox(), 2)

    for command in (("delete", "ada", "--yes"), ("export", "ada")):
        assert "there is no context 'ada'" in (await context(*command, code=ExitCode.FAILED)).err
    reply = await client.ask("anew", "ada")
    assert reply.turn == 1
    assert await worker.stop() == 0


async def test_dead_letters_of_a_dialog_that_has_expired_are_found_too(
    broker: RabbitMQBroker, topology: Topology, context: DeadCommand, dead: DeadCommand
) -> None:
    await publish_all(broker, [buried(topology, "ada", "1")])
    assert len(records((await context("export", "ada")).out, "dead letter")) == 1
    await context("delete", "ada", "--yes")
    assert await dead.listed() == []


async def test_where_not_all_dead_letters_were_looked_at_it_is_told_and_ends_with_1(
    broker: RabbitMQBroker, topology: Topology, context: DeadCommand, dead: DeadCommand
) -> None:
    await publish_all(broker, [buried(topology, "ada", str(number)) for number in range(3)])
    told = await context("delete", "ada", "--yes", "--scan", "2", code=ExitCode.FAILED)
    assert "only the oldest 2 dead letters were looked at" in told.err, told
    assert [letter["request_id"] for letter in await dead.listed()] == ["ada-2"], told


async def test_without_a_topology_there_are_no_dead_letters_and_what_is_stored_is_deleted(
    namespace: str, context: DeadCommand, store: RedisStore
) -> None:
    await store.load("ada", "r1", epoch=1, attempt="a", history=1)
    assert records((await context("export", "ada")).out, "context")[0]["started"] == "r1"
    await context("delete", "ada", "--yes")
    assert await store.read_outbox("ada") == Outbox()


async def test_every_key_of_a_namespace_goes_by_itself(
    client: BrokerClient, topology: Topology, start_worker: StartWorker, redis_url: str
) -> None:
    worker = await (await start_worker(TELLING, context_ttl=3600, attempts=1)).ready()
    await talk(client, "ada", "first")
    for text in ("raise it", "reject it"):  # a start of a turn that was never committed
        assert (await client.ask(text, f"failed {text}")).error is not None
    async with Redis.from_url(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(match=f"{topology.namespace}:*")]
        lives = {key.decode().removeprefix(f"{topology.namespace}:"): await redis.ttl(key) for key in keys}
    assert {"ctx:{ada}", "ctx:{failed raise it}", "workers", "epoch", "plan"} <= lives.keys()
    assert {name for name, seconds in lives.items() if not 0 < seconds <= 3600} == set()
    assert await worker.stop() == 0


BODIES: Sequence[Any] = [
    {"version": 1, "ctx_id": "ada", "message": {"text": [MARKER]}},
    {"version": 1, "ctx_id": "ada", "message": {"text": "x", "attachments": MARKER}},
    {"version": 1, "ctx_id": "ada", "message": {"text": "x", "origin": {"interface": f"{MARKER}!"}}},
    {"version": 1, "ctx_id": "ada", "message": {"text": "x", "origin": {"message": MARKER}}},
    {"version": 1, "ctx_id": "ada", "message": {"attachments": [{"chatsky_attachment_type": "image", "id": [MARKER]}]}},
    {
        "version": 1,
        "ctx_id": "ada",
        "message": {"attachments": [{"chatsky_attachment_type": "image", "source": MARKER}]},
    },
    {"version": 1, "ctx_id": "ada", "message": MARKER, "update_ctx_misc": MARKER},
    {"version": MARKER, "ctx_id": "ada", "message": {"text": MARKER}},
    {"version": 1, "ctx_id": [MARKER], "message": {"text": MARKER}},
    {"version": 1, "ctx_id": "ada", "message": {"text": MARKER, "misc": {"a": {"__pickled_extra_fields__": MARKER}}}},
    [MARKER],
    MARKER,
]


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("app", [TELLING, PIPELINE], ids=["handler", "pipeline"])
async def test_no_log_tells_what_was_said(
    app: str,
    level: str,
    broker: RabbitMQBroker,
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    processes: list[WorkerProcess],
    worker_settings: dict[str, str],
) -> None:
    settings = {"SWITCHBOARD_ATTEMPTS": "2", "SWITCHBOARD_RETRY_WAIT": "0", "SWITCHBOARD_TURN_TIMEOUT": "0.5"}
    command = ["-m", "worker.cli", "run", app, "--log-level", level]
    worker = await WorkerProcess.start(command, worker_settings | settings)
    processes.append(worker)
    await worker.ready()
    words = ["say", "raise", "reject", "retry", "late", "bytes", "object", "number", "invalid", "large"]
    failed = []
    for word in words:
        message = Message(f"{word} {MARKER}", misc={"also": MARKER})
        reply = await client.ask(message, word, update_ctx_misc={"with": MARKER})
        if reply.error is not None:
            failed.append(reply.error.code)
    expected = {Reason.HANDLER_FAILED, Reason.REJECTED, Reason.TURN_TIMEOUT, Reason.REPLY_INVALID}
    assert set(failed) == (expected if app == TELLING else set())
    bodies = [json.dumps(body).encode() for body in BODIES] + [f'{{"{MARKER}'.encode(), MARKER.encode() + b"\xff"]
    already = len(failed)
    for number, body in enumerate(bodies):
        properties = Properties(message_id=f"bad-{number}")
        await broker.publish(Outgoing(topology.requests_exchange, str(slot("ada")), body, properties))

    async def are_dead() -> bool:
        return await wire.count(topology.dead) == already + len(bodies)

    await eventually(are_dead, "as many dead letters")
    assert await worker.stop() == 0
    assert all(f"'bad-{number}'" in worker.log for number in range(len(bodies)))  # the log was there to be looked at
    assert ("DEBUG" in worker.log) == (level == "debug")
    assert [line for line in worker.log.splitlines() if MARKER in line] == []
