"""`switchboard doctor` on a topology that has drifted: each drift is made for real, found by name, mended as told."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from aiormq import connect
from aiormq.abc import AbstractChannel

from interfaces.errors import ExitCode
from interfaces.topology import Topology
from tests.conformance.broker_probes import delete_everything
from tests.services.command import run_command
from tests.services.managed_broker import ManagedBroker
from tests.services.processes import WorkerProcess
from tests.services.redis_node import RedisNode

TOPOLOGY = Topology("drift", 2)
FIRST, SECOND = TOPOLOGY.shard_queues
SECONDS = 30.0

pytestmark = pytest.mark.timeout(240)


class Found(NamedTuple):
    """What the doctor said in one run."""

    code: int
    checks: list[dict[str, Any]]

    def of(self, check: str) -> list[tuple[str, str]]:
        return [(it["status"], it["detail"]) for it in self.checks if it["check"] == check]

    def faults(self) -> list[str]:
        return [f"{it['check']}: {it['detail']}" for it in self.checks if it["status"] == "fail"]

    def mend(self, check: str) -> str:
        [mend] = [it["mend"] for it in self.checks if it["check"] == check]
        return str(mend)


class World:
    """A RabbitMQ with its management API, a Redis, and the command on both."""

    def __init__(self) -> None:
        self.broker, self.redis = ManagedBroker(), RedisNode()

    @property
    def settings(self) -> dict[str, str]:
        return {
            "SWITCHBOARD_AMQP_URL": self.broker.url,
            "SWITCHBOARD_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "SWITCHBOARD_NAMESPACE": TOPOLOGY.namespace,
            "SWITCHBOARD_SHARDS": str(TOPOLOGY.shards),
        }

    async def run(self, *arguments: str) -> None:
        done = await run_command(*arguments, settings=self.settings)
        assert done.returncode == ExitCode.OK, done.stderr

    async def doctor(self, *arguments: str) -> Found:
        arguments = arguments or ("--management-url", self.broker.management_url)
        done = await run_command("doctor", "--json", *arguments, settings=self.settings)
        assert done.stderr == ""
        return Found(done.returncode, json.loads(done.stdout)["checks"])

    async def doctor_until(self, holds: Callable[[Found], bool]) -> Found:
        """Its words once RabbitMQ's statistics, which come every five seconds, have caught up."""
        deadline = time.monotonic() + SECONDS
        while not holds(found := await self.doctor()):
            assert time.monotonic() < deadline, found
        return found


@pytest.fixture(scope="module")
def servers() -> Iterator[World]:
    world = World()
    try:
        world.broker.start_now()
        world.redis.start_now()
        yield world
    finally:
        world.broker.remove_now()
        world.redis.remove_now()


@pytest.fixture
async def world(servers: World) -> Any:
    """A namespace as it should be, gone afterwards."""
    await servers.run("topology", "apply")
    yield servers
    for generation in (1, 2, 3):
        await delete_everything(servers.broker.url, replace(TOPOLOGY, generation=generation, shards=3))
    servers.redis.ask("FLUSHALL")


@pytest.fixture
async def channel(world: World) -> Any:
    """A strange hand on the broker."""
    connection = await connect(world.broker.url)
    yield await connection.channel()
    await connection.close()


@asynccontextmanager
async def policy(world: World, kind: str, name: str, pattern: str, says: Mapping[str, int]) -> AsyncIterator[None]:
    """A "policy" or "operator_policy" for queues."""
    await world.broker.rabbitmqctl(f"set_{kind}", name, pattern, json.dumps(says), "--apply-to", "queues")
    try:
        yield
    finally:
        await world.broker.rabbitmqctl(f"clear_{kind}", name)


async def test_a_topology_as_declared_has_no_drift(world: World) -> None:
    found = await world.doctor_until(lambda found: found.of("policies")[0][0] != "skip")
    assert (found.code, found.faults()) == (ExitCode.OK, [])
    assert found.of("topology") == [("ok", "namespace 'drift', 2 shards, as it should be")]
    assert found.of("bindings") == [("ok", "each of 1024 slots leads to its queue, and dead letters to theirs")]
    assert found.of("policies") == [("ok", "none changes a queue of this namespace")]


async def test_without_the_api_the_doctor_says_what_it_has_not_seen(world: World, channel: AbstractChannel) -> None:
    await channel.queue_unbind(FIRST, exchange=TOPOLOGY.requests_exchange, routing_key="4")
    found = await world.doctor("--max-length", str(TOPOLOGY.max_length))
    assert (found.code, found.faults()) == (ExitCode.OK, [])
    [(status, _)] = found.of("bindings, policies")
    assert (status, "--management-url" in found.mend("bindings, policies")) == ("skip", True)


async def test_an_unbound_slot_is_found_and_bound_again_by_the_command_that_is_told(
    world: World, channel: AbstractChannel
) -> None:
    await channel.queue_unbind(FIRST, exchange=TOPOLOGY.requests_exchange, routing_key="4")
    await channel.queue_unbind(SECOND, exchange=TOPOLOGY.requests_exchange, routing_key="1023")
    found = await world.doctor()
    assert found.code == ExitCode.BROKER
    assert found.faults() == ["bindings: 2 of 1024 slots lead nowhere (4, 1023): their requests come back"]
    assert found.mend("bindings") == "switchboard topology apply"
    await world.run("topology", "apply")
    assert (await world.doctor()).of("bindings")[0][0] == "ok"


async def test_a_slot_that_leads_to_another_queue_as_well_is_found(world: World, channel: AbstractChannel) -> None:
    await channel.queue_bind(SECOND, exchange=TOPOLOGY.requests_exchange, routing_key="4")
    found = await world.doctor()
    assert found.code == ExitCode.BROKER
    assert found.faults() == [
        f"bindings: 1 of 1024 slots lead to a queue that is not theirs (4): slot 4 to {SECOND!r} as well, "
        f"and its own is {FIRST!r}: the order is lost"
    ]
    assert found.mend("bindings").endswith(f"delete the other bindings of exchange {TOPOLOGY.requests_exchange!r}")


async def test_a_queue_that_listens_in_is_a_warning(world: World, channel: AbstractChannel) -> None:
    await channel.queue_declare("tap", exclusive=True)
    await channel.queue_bind("tap", exchange=TOPOLOGY.requests_exchange, routing_key="4")
    found = await world.doctor()
    assert found.code == ExitCode.OK
    [(status, detail)] = found.of("bindings")
    assert (status, "4 of exchange drift.requests leads to tap" in detail) == ("warn", True)


async def test_dead_letters_that_lead_nowhere_are_found(world: World, channel: AbstractChannel) -> None:
    await channel.queue_unbind(TOPOLOGY.dead, exchange=TOPOLOGY.dead)
    found = await world.doctor()
    assert found.code == ExitCode.BROKER
    assert found.faults()[0].startswith("bindings: exchange 'drift.dead' does not lead to the queue of that name")
    await world.run("topology", "apply")
    assert (await world.doctor()).code == ExitCode.OK


async def test_queues_with_other_arguments_are_named_with_both_values_and_mended_by_a_reshard(
    world: World, channel: AbstractChannel
) -> None:
    await channel.queue_delete(SECOND)
    other: dict[str, Any] = dict(TOPOLOGY.shard_arguments) | {"x-delivery-limit": 3}
    await channel.queue_declare(SECOND, durable=True, arguments=other)
    for number in range(1, 1024, 2):
        await channel.queue_bind(SECOND, exchange=TOPOLOGY.requests_exchange, routing_key=str(number))
    found = await world.doctor()
    assert found.code == ExitCode.BROKER
    assert found.faults() == [
        f"topology: x-delivery-limit of {SECOND!r} is 3, and this version with these settings declares 100000"
    ]
    assert "switchboard topology reshard --shards 3, which makes new queues" in found.mend("topology")


async def test_queues_that_workers_of_other_settings_declared_are_replaced_while_those_run(world: World) -> None:
    await delete_everything(world.broker.url, TOPOLOGY)
    world.redis.ask("FLUSHALL")
    settings = world.settings | {"SWITCHBOARD_MAX_LENGTH": "9000"}
    worker = await WorkerProcess.start(["-m", "worker.cli", "run", "tests.bots.echoing:bot"], settings)
    try:
        await worker.ready()
        found = await world.doctor()
        assert found.code == ExitCode.BROKER
        assert f"x-max-length of {FIRST!r} and 1 more is 9000" in found.faults()[0]
        await world.run("topology", "reshard", "--shards", "3")
        assert (await world.doctor()).faults() == []
        await world.run("send", "ada", "Hello")
        assert await worker.stop() == ExitCode.OK
    finally:
        await worker.kill()


async def test_an_exchange_of_another_kind_and_a_queue_of_another_length_are_both_told(
    world: World, channel: AbstractChannel
) -> None:
    await channel.exchange_delete(TOPOLOGY.replies_exchange)
    await channel.exchange_declare(TOPOLOGY.replies_exchange, exchange_type="direct", durable=True)
    found = await world.doctor("--max-length", "9")
    assert found.code == ExitCode.BROKER
    assert found.faults() == [
        "topology: type of 'exchange drift.replies' is direct, and this version with these settings declares topic",
        f"topology: x-max-length of {FIRST!r} and 1 more is 1000000, and this version with these settings declares 9",
    ]
    told = json.dumps(found.checks)
    assert "SWITCHBOARD_MAX_LENGTH=1000000; or while workers" in told


async def test_a_policy_that_takes_requests_away_is_a_fault_and_one_that_bounds_a_warning(world: World) -> None:
    policies = {"message-ttl": 60_000, "max-length-bytes": 10_000, "max-length": 2_000_000}
    async with policy(world, "policy", "requests", r"^drift\.requests\.", policies):
        found = await world.doctor_until(lambda found: len(found.of("policies")) == 2)
    assert found.code == ExitCode.BROKER
    assert sorted(found.of("policies")) == [
        (
            "fail",
            f"{FIRST!r} and 1 more have message-ttl: 60000 by policy 'requests', which this version does not declare",
        ),
        (
            "warn",
            f"{FIRST!r} and 1 more have max-length-bytes: 10000 by policy 'requests', which this version does not "
            "declare",
        ),
    ]


async def test_an_operator_policy_that_makes_dead_letters_drop_is_a_fault(world: World) -> None:
    async with policy(world, "operator_policy", "dead", r"^drift\.dead$", {"max-length": 100}):
        found = await world.doctor_until(lambda found: found.of("policies")[0][0] == "fail")
    assert found.code == ExitCode.BROKER
    assert found.of("policies")[0][1].startswith("'drift.dead' have max-length: 100 by operator policy 'dead'")


@pytest.mark.parametrize(
    ("url", "told"), [("http://127.0.0.1:1", "does not answer"), ("ftp://here", "does not answer")]
)
async def test_an_api_that_cannot_be_asked_is_a_fault_since_it_was_asked_for(world: World, url: str, told: str) -> None:
    found = await world.doctor("--management-url", url)
    assert found.code == ExitCode.BROKER
    assert told in found.faults()[0]


async def test_a_user_without_the_tag_is_told_how_to_get_it(world: World) -> None:
    await world.broker.rabbitmqctl("set_user_tags", "guest")
    try:
        found = await world.doctor()
        assert found.code == ExitCode.BROKER
        assert "answers 401 to GET /api/exchanges/%2F/drift.requests/bindings/source" in found.faults()[0]
        assert "rabbitmqctl set_user_tags USER management" in found.mend("management")
    finally:
        await world.broker.rabbitmqctl("set_user_tags", "guest", "administrator")
