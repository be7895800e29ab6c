"""Two versions on one namespace: what was written once is read for ever, versions take over from one another, and
`switchboard doctor` says who cannot.

What was written stands here byte for byte; nothing of the code makes it. Layout 1 by itself: `test_layout_1.py`.
"""

import json
import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import commands
from redis.asyncio import Redis

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import ExitCode
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.wire import Wire
from tests.services.command import run_command
from tests.services.processes import WorkerProcess
from worker.members import Identity
from worker.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(120)

ADA = "872"
"""Slot of the context `ada`."""
REQUEST = b'{"version":1,"ctx_id":"ada","message":{"text":"Hello"}}'
REPLY = b'{"version":1,"ctx_id":"ada","request_id":"first","turn":1,"status":"ok","message":{"text":"of version 1"}}'
LAYOUT_1: dict[str, str | bytes] = {
    "v": "1",
    "t0": "0",
    "t:1": '{"request":{"text":"Hello"},"response":{"text":"of version 1"}}',
    "m": '{"layout":1,"created_at":1760000000000000000,"updated_at":1760000000000000001,"misc":{"turns":1},'
    '"framework_data":{}}',
    "d:1": "first",
    "o:1": REPLY,
    "e": "1760000000000000",
    "o0": "1",
    "i:first": "1",
}
MAIN = (
    '{"layout":2,"created_at":1760000000000000000,"updated_at":1760000000000000001,"misc":{"turns":1},'
    '"framework_data":{}}'
)
LAYOUT_2: dict[str, str | bytes] = {
    "e": "layout 2",
    "x": "0.5",
    "v": "-1",
    # Version 1, revision 0, epoch 1760000000000000; turns from 0 and replies from 1 on; no turn that was started.
    "h": bytes.fromhex("01 00 cf000640b5eece0000 00 01 00a0a0"),
    "t:1": '{"request":{"text":"Hello"},"response":{"text":"of version 1"}}',
    "m": MAIN,
    "d:1": "first",
    "r:first": REPLY,
}
PLAN = '{"version":1,"current":{"number":1,"shards":4,"prefetch":8192},"previous":null,"moving":false}'

KEYS = {
    name: f"{name}:{b64encode(name.encode() * 32).decode()}"  # of 64 bytes
    for name in ("k1", "k2")
}


async def bot(ctx: Context) -> str:
    """Tells which process ran the turn, and how many there were before."""
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return f"{os.getpid()} {ctx.misc['turns']}"


BOT = "tests.integration.test_versions:bot"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


async def put(redis: Redis, key: str, fields: dict[str, str | bytes]) -> None:
    for name, value in fields.items():
        await redis.hset(key, name, value)
    await redis.expire(key, 3600)


async def publish(wire: Wire, topology: Topology, request_id: str) -> None:
    """As any AMQP client in any language has done it since the first version."""
    properties = commands.Basic.Properties(
        message_id=request_id, correlation_id=request_id, content_type="application/json", delivery_mode=2
    )
    confirmed = await wire.channel.basic_publish(
        REQUEST, exchange=topology.requests_exchange, routing_key=ADA, properties=properties, mandatory=True
    )
    assert isinstance(confirmed, commands.Basic.Ack)


@pytest.mark.parametrize("context", [LAYOUT_1, LAYOUT_2], ids=["layout 1", "layout 2"])
async def test_a_dialog_stored_once_goes_on_and_its_last_reply_is_published_again_byte_for_byte(
    redis: Redis,
    namespace: str,
    topology: Topology,
    wire: Wire,
    start_worker: StartWorker,
    context: dict[str, str | bytes],
) -> None:
    await put(redis, f"{namespace}:ctx:{{ada}}", context)
    await put(redis, f"{namespace}:plan", {"plan": PLAN})
    worker = await (await start_worker(BOT)).ready()
    replies = await wire.listen(topology.replies_exchange)
    await publish(wire, topology, "first")
    await publish(wire, topology, "second")
    await eventually(lambda: _has(wire, replies, 2), "both are answered")
    again, following = await wire.take_all(replies)
    assert again.body == REPLY
    said = json.loads(following.body)
    assert (said["version"], said["request_id"], said["turn"], said["status"]) == (1, "second", 2, "ok")
    assert said["message"] == {"text": f"{worker.pid} 2"}


async def _has(wire: Wire, queue: str, count: int) -> bool:
    return await wire.count(queue) == count


class Dialogs:
    """Forty dialogs, and who answered them."""

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self._rounds = 0

    async def go_on(self) -> dict[int, list[str]]:
        """One more message in each; the contexts that each process answered, every one of them with its next turn."""
        self._rounds += 1
        answered = defaultdict(list)
        for number in range(40):
            reply = await self._client.ask(f"round {self._rounds}", f"ctx-{number}")
            assert reply.message is not None
            assert reply.message.text is not None
            pid, turns = map(int, reply.message.text.split())
            assert (turns, reply.turn) == (self._rounds, self._rounds)
            answered[pid].append(f"ctx-{number}")
        return answered


@asynccontextmanager
async def other_version(settings: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    process = await WorkerProcess.start(["-m", "tests.chaos.other_version", "run", BOT], settings)
    try:
        yield await process.ready()
    finally:
        await process.kill()


async def test_workers_of_two_versions_share_the_work_and_go_on_with_each_others_dialogs(
    worker_settings: dict[str, str], start_worker: StartWorker, client: BrokerClient, store: RedisStore
) -> None:
    dialogs = Dialogs(client)

    async def spread() -> bool:
        return len(await dialogs.go_on()) == 2

    async with other_version(worker_settings) as older:
        assert set(await dialogs.go_on()) == {older.pid}
        newer = await (await start_worker(BOT)).ready()
        await eventually(spread, "both versions answer")
        found = await run_command("doctor", settings=worker_settings)
        assert found.returncode == ExitCode.OK, found.stdout
        [said] = [line for line in found.stdout.splitlines() if "neighbours: " in line]
        assert said.startswith("ok    neighbours: workers that share this namespace: 1 of version ")
        assert said.endswith(", 1 of version unknown")
        assert await older.stop() == ExitCode.OK
    assert set(await dialogs.go_on()) == {newer.pid}
    async with other_version(worker_settings) as back:
        assert await newer.stop() == ExitCode.OK
        assert set(await dialogs.go_on()) == {back.pid}


async def doctor(settings: dict[str, str]) -> tuple[int, dict[str, dict[str, Any]]]:
    done = await run_command("doctor", "--json", settings=settings)
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, {check["check"]: check for check in checks}


async def test_the_doctor_names_a_worker_that_writes_what_this_version_cannot_read(
    worker_settings: dict[str, str], topology: Topology, store: RedisStore
) -> None:
    this = Identity(None).member(host="node-7", pid=12, version="9.0.0")
    newer = this.model_copy(update={"writes": this.writes | {"contexts": 3}})
    await store.announce("worker-of-9", newer.model_dump_json().encode(), 60)
    await store.announce("worker-of-99", b'{"beat": "very often"}', 60)
    code, found = await doctor(worker_settings)
    assert code == ExitCode.STORE
    assert found["neighbours"]["detail"] == "worker 'worker-of-99' says of itself what this version cannot read"
    await store.withdraw("worker-of-99")
    code, found = await doctor(worker_settings)
    assert code == ExitCode.STORE
    assert found["neighbours"]["detail"] == (
        "worker 'worker-of-9' (version 9.0.0, process 12 on node-7) writes contexts in format 3, "
        "and this version reads 1, 2"
    )
    assert "docs/upgrades.md" in found["neighbours"]["mend"]


async def test_the_doctor_names_a_worker_with_other_keys_and_contexts_that_cannot_be_opened(
    worker_settings: dict[str, str], start_worker: StartWorker, topology: Topology, amqp_url: str
) -> None:
    worker = await (await start_worker(BOT, encryption_keys=KEYS["k1"])).ready()
    ours = worker_settings | {"SWITCHBOARD_ENCRYPTION_KEYS": KEYS["k1"]}
    assert (await run_command("send", "ada", "Hello", settings=ours)).returncode == ExitCode.OK
    code, found = await doctor(ours)
    assert code == ExitCode.OK, found
    assert found["contexts"]["detail"].startswith("1 looked at, all of them readable; ")
    assert found["contexts"]["detail"].endswith("encrypts under the key 'k1'")

    code, found = await doctor(worker_settings | {"SWITCHBOARD_ENCRYPTION_KEYS": KEYS["k2"]})
    assert code == ExitCode.STORE
    assert "by a process that encrypts under the key 'k2'" in found["neighbours"]["detail"]
    assert found["contexts"]["detail"] == (
        "1 of 1 looked at cannot be read: stored context 'ada': main 1: it is encrypted under the key 'k1', which is "
        "not in SWITCHBOARD_ENCRYPTION_KEYS"
    )
    assert await worker.stop() == ExitCode.OK


async def test_the_doctor_names_a_plan_and_contexts_that_a_newer_version_has_left(
    redis: Redis, namespace: str, worker_settings: dict[str, str], topology: Topology
) -> None:
    layout_3 = LAYOUT_2 | {"m": MAIN.replace('"layout":2', '"layout":3')}
    plan_2 = PLAN.replace('"version":1', '"version":2')
    await put(redis, f"{namespace}:ctx:{{ada}}", layout_3)
    await put(redis, f"{namespace}:plan", {"plan": plan_2})
    code, found = await doctor(worker_settings)
    assert code == ExitCode.STORE
    assert (found["plan"]["status"], found["contexts"]["status"], found["topology"]["status"]) == ("fail", "fail", "ok")
    assert found["contexts"]["detail"].startswith("1 of 1 looked at cannot be read: stored context 'ada': layout: ")
