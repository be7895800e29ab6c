"""What KEDA is told by RabbitMQ when it asks as `deploy/kubernetes/keda` has it: what is worked on counts too."""

import asyncio
import base64
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.services.command import ROOT, run_command
from tests.services.managed_broker import ManagedBroker
from tests.services.processes import WorkerProcess
from tests.services.redis_node import RedisNode

HELD = 12
SECONDS = 60.0
WORD = "a-word"
SCALER = "switchboard-scaler"


@pytest.fixture(scope="module")
def broker() -> Iterator[ManagedBroker]:
    """With the shipped user of the scaler."""
    broker = ManagedBroker()
    try:
        broker.start_now()
        permissions = json.loads((ROOT / "deploy/rabbitmq/permissions.json").read_text())["permissions"]
        [entry] = [entry for entry in permissions if entry["user"] == SCALER]
        broker.rabbitmqctl_now("add_user", SCALER, WORD)
        broker.rabbitmqctl_now("set_user_tags", SCALER, "management")
        broker.rabbitmqctl_now("set_permissions", SCALER, entry["configure"], entry["write"], entry["read"])
        yield broker
    finally:
        broker.remove_now()


@pytest.fixture
def redis() -> Iterator[RedisNode]:
    redis = RedisNode()
    redis.start_now()
    yield redis
    redis.remove_now()


def trigger() -> dict[str, str]:
    [scaled, _] = yaml.safe_load_all((ROOT / "deploy/kubernetes/keda/scaled-object.yaml").read_text())
    metadata: dict[str, str] = scaled["spec"]["triggers"][0]["metadata"]
    return metadata


def ask(broker: ManagedBroker) -> list[dict[str, Any]]:
    """The queues in the answer to the very question of KEDA 2 (`pkg/scalers/rabbitmq_scaler.go`)."""
    asked = trigger()
    name, size = urllib.parse.quote_plus(asked["queueName"]), asked["pageSize"]
    path = f"/api/queues/%2F?page=1&use_regex=true&pagination=false&name={name}&page_size={size}"
    login = base64.b64encode(f"{SCALER}:{WORD}".encode()).decode()
    request = urllib.request.Request(broker.management_url + path, headers={"Authorization": f"Basic {login}"})  # noqa: S310 - a loopback address
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        items: list[dict[str, Any]] = json.loads(answer.read())["items"]
    return items


async def test_requests_that_a_worker_holds_are_counted_and_no_queue_is_left_out(
    broker: ManagedBroker, redis: RedisNode
) -> None:
    shards = 128  # more than the hundred queues of a page that KEDA would ask for by itself
    settings = {
        "SWITCHBOARD_AMQP_URL": broker.url,
        "SWITCHBOARD_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        "SWITCHBOARD_SHARDS": str(shards),
    }
    applied = await run_command("topology", "apply", settings=settings)
    assert applied.returncode == 0, applied.stderr
    arguments = ["-m", "worker.cli", "run", "tests.integration.test_status:sleep", "--drain-timeout", "0"]
    worker = await WorkerProcess.start(arguments, settings)
    try:
        await worker.ready()
        async with BrokerClient(broker.url) as client:
            for number in range(HELD):
                await client.send("Hello", f"ctx-{number}")
        deadline = time.monotonic() + SECONDS
        while True:
            queues = await asyncio.to_thread(ask, broker)
            counted = sum(queue.get("messages", 0) for queue in queues)
            held = sum(queue.get("messages_unacknowledged", 0) for queue in queues)
            if (counted, held) == (HELD, HELD):
                break
            assert time.monotonic() < deadline, (counted, held)
            await asyncio.sleep(0.2)
    finally:
        await worker.kill()
    assert sum(queue["messages_ready"] for queue in queues) == 0
    assert sorted(queue["name"] for queue in queues) == Topology(shards=shards).shard_queues
