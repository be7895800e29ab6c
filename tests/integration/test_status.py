"""`switchboard status` on real servers: what it tells is so, of workers that come, hold requests, and die."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import pytest

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import SHARDS, StartWorker
from tests.services.processes import ROOT

pytestmark = pytest.mark.timeout(120)


async def sleep(ctx: Context) -> None:
    """A bot that is still in its turn when the test ends."""
    await asyncio.sleep(3600)


class Status:
    """Runs the command."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "worker.cli", "status", *arguments),
            cwd=ROOT,
            env=environ | self._settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def data(self) -> dict[str, Any]:
        process = await self.start("--json")
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        found: dict[str, Any] = json.loads(output)
        return found


@pytest.fixture
def status(worker_settings: dict[str, str]) -> Status:
    return Status(worker_settings)


async def test_workers_shards_and_held_requests_are_told_as_they_are(
    topology: Topology, client: BrokerClient, start_worker: StartWorker, status: Status
) -> None:
    first = await (await start_worker("tests.integration.test_status:sleep", drain_timeout=0)).ready()
    second = await (await start_worker("tests.integration.test_status:sleep", drain_timeout=0)).ready()

    async def all_is_well() -> bool:
        found = await status.data()
        return (
            {worker["pid"] for worker in found["workers"]} == {first.pid, second.pid}
            and all(len(shard["owners"]) == len(shard["standbys"]) == 1 for shard in found["shards"])
            and sorted(len(worker["consuming"]) for worker in found["workers"]) == [SHARDS // 2] * 2
            and (found["ready"], found["unsettled"], found["dead_letters"]) == (0, 0, 0)
        )

    await eventually(all_is_well, "two workers share the shards")
    await client.send("hello", "ctx")

    async def is_held() -> bool:
        held = [shard for shard in (await status.data())["shards"] if shard["unsettled"]]
        return [shard["queue"] for shard in held] == [topology.queue_of(slot("ctx"))] and held[0]["oldest_seconds"] > 0

    await eventually(is_held, "the owner of its shard holds the request")
    os.kill(second.pid, signal.SIGKILL)

    async def one_is_left() -> bool:
        found = await status.data()
        return [worker["pid"] for worker in found["workers"]] == [first.pid] and not any(
            shard["fault"] for shard in found["shards"]
        )

    await eventually(one_is_left, "the killed one is gone from the list, and its shards are served")


async def test_without_a_worker_every_shard_is_without_service_and_what_waits_is_counted(
    topology: Topology, client: BrokerClient, status: Status
) -> None:
    for number in range(5):
        await client.send("waits", f"ctx-{number}")
    found = await status.data()
    assert found["workers"] == []
    assert found["ready"] == 5
    assert {shard["fault"] for shard in found["shards"]} == {"no consumer"}
    process = await status.start()
    output, _ = await process.communicate()
    assert f"{SHARDS} of {SHARDS} shards without service" in output.decode()


async def test_watch_tells_again_and_again_and_ends_with_ctrl_c(
    topology: Topology, client: BrokerClient, status: Status
) -> None:
    process = await status.start("--watch", "0.2", "--json")
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["ready"] == 0
    await client.send("waits", "ctx")
    async with asyncio.timeout(30):
        while json.loads(await process.stdout.readline())["ready"] == 0:
            pass
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130
