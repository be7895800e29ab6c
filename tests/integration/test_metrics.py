"""What a worker counts on real servers: each metric moves as documented, and no label holds a user's words."""

import asyncio
from collections.abc import Callable

import pytest
from pamqp import commands
from prometheus_client import generate_latest

from interfaces import Context
from interfaces.client import BrokerClient
from interfaces.metrics import Histogram, Metrics
from interfaces.topology import Topology, slot
from tests.integration.conftest import SHARDS
from tests.integration.faults import running, until
from tests.integration.wire import Wire
from worker import Settings, Worker
from worker.exposition import registry_of
from worker.stores import Edit
from worker.stores.redis import RedisStore

MakeWorker = Callable[..., Worker]
EVERY_STAGE = ("lane", "load", "run", "commit", "publish", "settle", "turn")


@pytest.fixture
def make_worker(amqp_url: str, redis_url: str, topology: Topology) -> MakeWorker:
    def make(bot: object, **settings: object) -> Worker:
        urls = {"amqp_url": amqp_url, "redis_url": redis_url, "namespace": topology.namespace, "shards": SHARDS}
        return Worker(bot, Settings(**urls, **settings))  # type: ignore[arg-type]

    return make


def count(histogram: Histogram) -> int:
    return sum(histogram.counts)


def metrics_of(worker: Worker) -> Metrics:
    return worker.telemetry.metrics


async def answer(ctx: Context) -> str:
    return f"{ctx.current_turn_id}"


async def test_turns_that_run_are_counted_by_outcome_stage_and_batch(
    make_worker: MakeWorker, client: BrokerClient
) -> None:
    worker = make_worker(answer)
    metrics = metrics_of(worker)
    await asyncio.gather(*(client.send("hello", f"user {number}") for number in range(50)))
    async with running(worker):
        await until(lambda: metrics.turns_total["ok"] == 50, "all turns are counted")
        assert metrics.requests_total == {"false": 50, "true": 0}
        assert {stage: count(metrics.stage_seconds[stage]) for stage in EVERY_STAGE} == dict.fromkeys(EVERY_STAGE, 50)
        assert count(metrics.stage_seconds["queue"]) == 50  # the client gives each request a timestamp
        assert metrics.batch_size["load"].total == metrics.batch_size["commit"].total == 50
        assert metrics.batch_size["poll"].total == 50
        assert metrics.batch_size["write"].total >= 50
        assert count(metrics.batch_size["load"]) < 50  # some have travelled together
        await until(lambda: metrics.ready == 1, "it is ready")
        assert (metrics.consumer_up, sum(metrics.consumers.values())) == (1, SHARDS)
        assert (metrics.namespace_shards, metrics.turns_limit) == (SHARDS, worker.settings.concurrency)
        assert metrics.server_up == {"rabbitmq": 1, "redis": 1}
    stages = metrics.stage_seconds
    assert stages["turn"].total >= sum(stages[stage].total for stage in ("load", "run", "commit"))


async def test_gauges_show_what_is_at_work_and_fall_back_to_nothing(
    make_worker: MakeWorker, client: BrokerClient
) -> None:
    release = asyncio.Event()

    async def wait(_: Context) -> str:
        await release.wait()
        return "done"

    worker = make_worker(wait, concurrency=2)
    metrics = metrics_of(worker)
    for number in range(5):
        await client.send("hello", f"user {number}")
    async with running(worker):
        await until(lambda: (metrics.turns_running, metrics.lanes) == (2, 5), "two run, three wait")
        assert metrics.in_flight_requests == 5
        assert 5 * 2048 < metrics.in_flight_bytes < metrics.in_flight_bytes_limit
        release.set()
        await until(lambda: metrics.in_flight_requests == metrics.lanes == 0, "nothing is left")
        assert (metrics.turns_running, metrics.in_flight_bytes) == (0, 0)


async def test_a_repeated_request_counts_as_repeated_and_runs_no_bot(
    make_worker: MakeWorker, client: BrokerClient
) -> None:
    worker = make_worker(answer)
    async with running(worker):
        for _ in range(3):
            await client.ask("hello", "ada", request_id="r-1")
        await until(lambda: sum(metrics_of(worker).turns_total.values()) == 3, "all are settled")
    metrics = metrics_of(worker)
    assert metrics.turns_total == {"ok": 1, "repeated": 2, "dead": 0, "abandoned": 0}
    assert (count(metrics.stage_seconds["run"]), count(metrics.stage_seconds["load"])) == (1, 3)


async def test_failures_count_as_retries_and_at_last_as_a_dead_letter_with_its_reason(
    make_worker: MakeWorker, client: BrokerClient, wire: Wire, namespace: str
) -> None:
    async def fail(ctx: Context) -> str:
        if ctx.last_request.text == "never":
            raise ValueError("no")
        return "done"

    worker = make_worker(fail, attempts=3, retry_wait=0)
    metrics = metrics_of(worker)
    async with running(worker):
        await client.ask("never", "ada")
        properties = commands.Basic.Properties(message_id="broken", delivery_mode=2)
        exchange, key = f"{namespace}.requests", str(slot("ada"))
        await wire.channel.basic_publish(b"{", exchange=exchange, routing_key=key, properties=properties)
        await until(lambda: metrics.turns_total["dead"] == 2, "both are settled")
    assert metrics.retries_total == 2
    dead = {reason: number for reason, number in metrics.dead_letters_total.items() if number}
    assert dead == {"handler-failed": 1, "bad-json": 1}
    assert metrics.turns_total["ok"] == 0


async def test_a_commit_that_is_refused_counts_as_fenced_and_the_turn_runs_anew(
    make_worker: MakeWorker, client: BrokerClient, store: RedisStore
) -> None:
    runs: list[int] = []

    async def overtaken(ctx: Context) -> str:
        runs.append(ctx.current_turn_id)
        if runs == [1, 2]:
            there = await store.peek("ada", 10)
            assert there is not None
            assert there.main is not None
            await store.edit(Edit("ada", "edit", there.version, there.revision, there.version, there.main, {}))
        return "done"

    worker = make_worker(overtaken)
    async with running(worker):
        await client.ask("hello", "ada")
        await client.ask("hello", "ada")
        await until(lambda: metrics_of(worker).turns_total["ok"] == 2, "both are settled")
    assert runs == [1, 2, 2]
    assert metrics_of(worker).fenced_commits_total == 1


async def test_a_context_that_another_worker_took_over_counts_as_abandoned_and_its_request_as_redelivered(
    make_worker: MakeWorker, client: BrokerClient, store: RedisStore
) -> None:
    worker = make_worker(answer)
    metrics = metrics_of(worker)
    async with running(worker):
        await client.ask("hello", "ada")
        await store.load("ada", "of another", epoch=await store.claim(), attempt="another", history=1)
        await client.ask("hello", "ada")
        await until(lambda: metrics.turns_total["ok"] == 2, "both are settled")
    assert metrics.turns_total["abandoned"] == 1
    assert metrics.requests_total["true"] >= 1


async def test_queues_that_go_to_another_worker_count_as_handed_over(make_worker: MakeWorker) -> None:
    first, second = make_worker(answer), make_worker(answer)
    async with running(first), running(second):
        await until(lambda: len(first.owned) == len(second.owned) == SHARDS // 2, "each has its half")
        await until(lambda: metrics_of(first).hand_overs_total >= SHARDS // 2, "the first has handed over its half")
    assert metrics_of(second).hand_overs_total < SHARDS


async def test_no_label_holds_anything_of_a_user(make_worker: MakeWorker, client: BrokerClient) -> None:
    worker = make_worker(answer, attempts=1)
    async with running(worker):
        await client.ask("words-of-a-user", "context-of-a-user", request_id="request-of-a-user")
        await client.ask("words-of-a-user", "context-of-a-user", request_id="request-of-a-user")
        await until(lambda: sum(metrics_of(worker).turns_total.values()) == 2, "both are settled")
        exposed = generate_latest(registry_of(metrics_of(worker))).decode()
    assert 'switchboard_turns_total{outcome="repeated"} 1.0' in exposed
    assert "of-a-user" not in exposed
    assert len(exposed.splitlines()) < 500  # that is what a worker costs a Prometheus, whoever talks to it
