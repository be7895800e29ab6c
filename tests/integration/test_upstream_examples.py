"""The services of examples/upstream, run as they stand: they get their replies, also when their connection is cut."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.topology import Topology, slot
from tests.integration.conftest import StartWorker
from tests.integration.faults import until
from tests.integration.redis_probes import proxied
from tests.services.processes import ROOT
from worker.records import read_context
from worker.stores.redis import RedisStore

BOT = "tests.bots.counting:answer"
CTX = "Größe"
SECONDS = 60
LANGUAGES = {"python": [sys.executable, "examples/upstream/ask.py"], "node": ["node", "examples/upstream/ask.js"]}

language = pytest.mark.parametrize("language", LANGUAGES)


async def start(
    language: str, amqplib: Path, amqp_url: str, namespace: str, *texts: str
) -> "asyncio.Task[tuple[int | None, str, str]]":
    """Run an example; its exit code, and what it wrote to standard output and error."""
    process = await asyncio.create_subprocess_exec(
        *LANGUAGES[language],
        CTX,
        *texts,
        cwd=ROOT,
        env=os.environ
        | {"NODE_PATH": str(amqplib / "node_modules"), "PYTHONPATH": str(ROOT)}
        | {"SWITCHBOARD_AMQP_URL": amqp_url, "SWITCHBOARD_NAMESPACE": namespace},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def ended() -> tuple[int | None, str, str]:
        try:
            async with asyncio.timeout(SECONDS):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, output.decode(), errors.decode()

    return asyncio.create_task(ended(), name=f"example in {language}")


async def waiting(broker: RabbitMQBroker, topology: Topology) -> int:
    """Requests of the dialog in its queue."""
    state = await broker.queue_state(topology.queue_of(slot(CTX)))
    return state.messages if state else 0


@language
async def test_an_upstream_example_prints_the_reply_to_each_text(
    language: str, node_amqplib: Path, amqp_url: str, namespace: str, start_worker: StartWorker
) -> None:
    worker = await (await start_worker(BOT)).ready()
    code, output, errors = await (await start(language, node_amqplib, amqp_url, namespace, "hello", "wie groß?"))
    assert (code, output) == (0, "1: hello\n2: wie groß?\n"), errors
    assert await worker.stop() == 0, worker.log


@language
async def test_an_upstream_example_whose_connection_is_cut_gets_its_reply_and_it_is_one_turn(
    language: str,
    node_amqplib: Path,
    amqp_url: str,
    broker: RabbitMQBroker,
    topology: Topology,
    store: RedisStore,
    start_worker: StartWorker,
) -> None:
    async with proxied(amqp_url) as (proxy, via_proxy):
        asking = await start(language, node_amqplib, via_proxy, topology.namespace, "hello")
        async with asyncio.timeout(SECONDS):
            while not await waiting(broker, topology):  # noqa: ASYNC110 - the queue is to be asked
                await asyncio.sleep(0.02)
        before = proxy.accepted
        await proxy.cut()
        await until(lambda: proxy.accepted > before, "it has connected again")
        worker = await (await start_worker(BOT)).ready()
        code, output, errors = await asking
    assert (code, output) == (0, "1: hello\n"), errors
    loaded = await store.peek(CTX, 10)
    assert loaded is not None
    context = read_context(CTX, loaded.version, loaded.main, loaded.turns)
    assert context.misc["applied"] == ["hello"]
    assert await worker.stop() == 0, worker.log


@language
async def test_an_upstream_example_without_queues_says_so_and_fails(
    language: str, node_amqplib: Path, amqp_url: str, namespace: str
) -> None:
    code, output, errors = await (await start(language, node_amqplib, amqp_url, namespace, "hello"))
    assert (code, output) == (1, "")
    assert f"{namespace}.requests" in errors
