"""The number of shards changes while publishers publish and workers work: order is kept, nothing is lost or doubled."""

import asyncio
import os
import random
import re
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.conformance.broker_probes import delete_everything, eventually
from tests.integration.conftest import SHARDS, Report, StartWorker
from tests.services.processes import ROOT, WorkerProcess
from worker.plan import Plan
from worker.records import read_context
from worker.stores.redis import RedisStore

BOT = "tests.bots.counting:answer"
CONTEXTS = 30
MOST_SHARDS = 32
BURST = 3
PATIENCE = 120.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
async def later_generations(amqp_url: str, namespace: str) -> AsyncIterator[None]:
    """Delete their queues as well, after the workers have ended."""
    yield
    for generation in (2, 3, 4):
        await delete_everything(amqp_url, Topology(namespace, MOST_SHARDS, generation))


class Traffic:
    """Requests to every context in bursts, the last of each answered before the next burst, from the start to `stop`.

    So it adapts to what the machine can do, and still each context has several requests on their way at any time.
    """

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self._stopping = False
        self.sent: defaultdict[str, list[str]] = defaultdict(list)

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        await asyncio.gather(*(self._publish(f"ctx-{number}") for number in range(CONTEXTS)))

    async def _publish(self, ctx_id: str) -> None:
        rng = random.Random(ctx_id)
        while not self._stopping:
            for _ in range(rng.randint(0, BURST)):
                text = self._next(ctx_id)
                await self._client.send(text, ctx_id, request_id=text)
            text = self._next(ctx_id)
            await self._client.ask(text, ctx_id, request_id=text, timeout=PATIENCE)
            await asyncio.sleep(rng.uniform(0, 0.5))

    def _next(self, ctx_id: str) -> str:
        self.sent[ctx_id].append(f"{ctx_id}/{len(self.sent[ctx_id])}")
        return self.sent[ctx_id][-1]


@asynccontextmanager
async def traffic(client: BrokerClient) -> AsyncIterator[Traffic]:
    """Publish while inside, and until everything begun is confirmed."""
    publishing = Traffic(client)
    task = asyncio.create_task(publishing.run())
    try:
        yield publishing
    finally:
        publishing.stop()
        await task


class Operator:
    """Runs `switchboard topology reshard` as operators do."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def begin(self, shards: int) -> asyncio.subprocess.Process:
        arguments = ["-m", "worker.cli", "topology", "reshard", "--shards", str(shards)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env=environ | self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def reshard(self, shards: int) -> str:
        """Its output. Fails where it does."""
        process = await self.begin(shards)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


@pytest.fixture
def operator(worker_settings: dict[str, str]) -> Operator:
    return Operator({name: value for name, value in worker_settings.items() if name != "SWITCHBOARD_SHARDS"})


async def all_applied(store: RedisStore, sent: dict[str, list[str]]) -> None:
    """Wait until every context holds exactly what was sent to it, in that order."""

    async def applied(ctx_id: str) -> list[str]:
        loaded = await store.peek(ctx_id, 1)
        if loaded is None:
            return []
        found = read_context(ctx_id, loaded.version, loaded.main, loaded.turns).misc["applied"]
        assert isinstance(found, list)
        return found

    async def all_there() -> bool:
        return all([len(await applied(ctx_id)) >= len(texts) for ctx_id, texts in sent.items()])

    await eventually(all_there, "every request has been applied")
    for ctx_id, texts in sent.items():
        assert await applied(ctx_id) == texts


async def queues_of(broker: RabbitMQBroker, topology: Topology) -> list[bool]:
    return [await broker.queue_state(queue) is not None for queue in topology.shard_queues]


def repeated(workers: list[WorkerProcess]) -> int:
    """Turns that were found committed already, by the workers' own account."""
    return sum(len(re.findall("was committed before", worker.log)) for worker in workers)


async def test_shards_become_more_and_fewer_in_traffic(
    namespace: str,
    topology: Topology,
    broker: RabbitMQBroker,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
    operator: Operator,
    report: Report,
) -> None:
    workers = [await start_worker(BOT) for _ in range(3)]
    for worker in workers:
        await worker.ready()
    async with traffic(client) as publishing:
        for shards in (8, 32, 16):
            output = await operator.reshard(shards)
            assert f"{shards} shards" in output
            # Workers that start now follow the plan, whatever their settings say.
            workers.append(await (await start_worker(BOT)).ready())
    await all_applied(store, publishing.sent)
    assert f"SWITCHBOARD_SHARDS is {SHARDS}, and namespace {namespace!r} has 16 shards" in workers[-1].log
    assert await queues_of(broker, topology) == [False] * SHARDS
    for generation, shards in ((2, 8), (3, 32)):
        assert await queues_of(broker, Topology(namespace, shards, generation)) == [False] * shards
    assert await queues_of(broker, Topology(namespace, 16, 4)) == [True] * 16
    dead = await broker.queue_state(topology.dead)
    assert dead is not None
    assert dead.messages == 0
    turns = sum(map(len, publishing.sent.values()))
    report(f"{SHARDS} -> 8 -> 32 -> 16 shards under {turns} turns; {repeated(workers)} requests deduplicated")


async def test_a_change_that_is_killed_again_and_again_goes_on_where_it_was(
    namespace: str,
    topology: Topology,
    broker: RabbitMQBroker,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
    operator: Operator,
) -> None:
    await (await start_worker(BOT)).ready()
    rng = random.Random(7)
    kills = 0
    async with traffic(client) as publishing:
        # Later and later, so that every step is interrupted: it takes half a second until the first one begins.
        for attempt in range(8):
            process = await operator.begin(8)
            with_output = asyncio.create_task(process.communicate())
            await asyncio.wait({with_output}, timeout=0.4 + 0.3 * attempt + rng.uniform(0, 0.3))
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            await with_output
        assert kills
        await operator.reshard(8)
    await all_applied(store, publishing.sent)
    assert await queues_of(broker, topology) == [False] * SHARDS
    assert await queues_of(broker, Topology(namespace, 8, 2)) == [True] * 8
    stored, passed = await store.read_plan()
    assert stored is not None
    assert Plan.read(stored) == Plan.of(Topology(namespace, 8, 2))
    assert not passed
