"""Every file of the corpus on real servers, at a handler and at a Chatsky pipeline, with good requests in between.

What is refused is among the dead letters as it was published, what is passed on is a turn like any other, and neither
leaves a trace: not in the dialogs, which go on, nor in the log, where no line is a stranger's.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import aiormq
import pytest
from pamqp import commands

from interfaces.brokers.properties import NAMES, AbsentId
from interfaces.client import BrokerClient
from interfaces.reply_bodies import Reply, decode_reply
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.hostile_inputs import NEIGHBOUR, HostileInput, Published, load_corpus
from tests.integration.conftest import Report
from tests.integration.wire import Seen, Wire, open_wire
from tests.services.processes import ROOT, WorkerProcess
from tests.services.watched_worker import UNPICKLING
from worker import records
from worker.stores.redis import RedisStore

BOTS = {"handler": "tests.bots.counting:answer", "pipeline": "tests.bots.chatsky_counting:pipeline"}
GOOD_EVERY = 20
SECONDS = 90
"""For hundreds of turns, and connections that RabbitMQ ends in between."""
CORPUS = load_corpus()
ARRIVING = [hostile for hostile in CORPUS if hostile.broker is None]
PASSED_ON = [hostile for hostile in ARRIVING if hostile.passes_the_decoder]
REFUSED = {f"correlation of {hostile.name}": hostile for hostile in ARRIVING if not hostile.is_answered}
PICKLED = "switchboard-was-unpickled"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +[\w.]+: |    ")
"""How a line of the log begins: as a record, or as a part of a traceback."""


@pytest.fixture(params=[pytest.param(BOTS["handler"], marks=pytest.mark.long), BOTS["pipeline"]], ids=list(BOTS))
async def worker(
    request: pytest.FixtureRequest, processes: list[WorkerProcess], worker_settings: dict[str, str], topology: Topology
) -> WorkerProcess:
    """A worker that tells of every pickle it reads."""
    arguments = ["-m", "tests.services.watched_worker", request.param]
    process = await WorkerProcess.start(arguments, worker_settings)
    processes.append(process)
    return await process.ready()


async def test_each_has_the_outcome_beside_it_and_harms_nobody(
    worker: WorkerProcess,
    topology: Topology,
    amqp_url: str,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    report: Report,
) -> None:
    reply_queue = await wire.new_queue(f"{topology.reply_prefix}of-the-test")
    published = {hostile.name: hostile.published(topology, reply_queue) for hostile in CORPUS}

    forbidden = await wire.new_queue(f"{topology.namespace}-payments")  # A file names it as the queue to reply to.

    good = await publish_all(published, amqp_url, wire, client)
    told = [hostile for hostile in ARRIVING if hostile.is_told]
    senders = {str(published[hostile.name].properties.correlation_id): hostile for hostile in told}
    dead = await collect(wire, topology.dead, REFUSED.keys())
    replies = await collect(wire, reply_queue, senders.keys())

    assert all(text.endswith(": hello") for text in good)
    assert [numbers(text) for text in good] == [[number] for number in range(1, len(good) + 1)]
    assert_dead_letters(dead, published)
    assert_replies(replies, senders)
    await assert_every_dialog_goes_on(client, store)
    assert await wire.count(forbidden) == 0
    assert worker.is_running
    assert await worker.stop() == 0, worker.log
    assert {correlation(seen) for seen in await wire.take_all(topology.dead)} <= REFUSED.keys()
    assert_clean_log(worker.log)
    report(f"{len(CORPUS)} hostile inputs, {len(REFUSED)} dead letters, {len(good)} good requests between them")


def test_the_watch_on_pickles_sees_one(tmp_path: Path) -> None:
    """Otherwise its silence would prove nothing."""
    code = "from tests.services.watched_worker import watch; watch(); import pickle; pickle.loads(pickle.dumps(1))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert UNPICKLING in run.stderr


async def publish_all(
    published: dict[str, Published], amqp_url: str, wire: Wire, client: BrokerClient
) -> Sequence[str]:
    """Publish the corpus with good requests between; the texts of the replies to those."""
    asked: list[asyncio.Task[Reply]] = []
    for number, hostile in enumerate(CORPUS):
        if number % GOOD_EVERY == 0:
            asked.append(asyncio.create_task(client.ask("hello", NEIGHBOUR, timeout=SECONDS)))
            await asyncio.sleep(0)
        if hostile.broker == "refused":
            async with open_wire(amqp_url) as refusing:
                with pytest.raises(aiormq.AMQPError):
                    await publish(refusing, published[hostile.name])
        else:
            assert await is_routed(wire, published[hostile.name]) == (hostile.broker is None), hostile.name
    replies = await asyncio.gather(*asked)
    return [str(reply.message.text) for reply in replies if reply.message]


async def is_routed(wire: Wire, message: Published) -> bool:
    """Publish, and return whether a queue has it."""
    try:
        await publish(wire, message)
    except aiormq.exceptions.PublishError:
        return False
    return True


async def publish(wire: Wire, message: Published) -> None:
    """Publish and wait for the confirm."""
    if not message.properties.message_id:
        message.properties.message_id = AbsentId(message.properties.correlation_id)  # The client would make one up.
    await wire.channel.basic_publish(
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        properties=message.properties,
        mandatory=True,
    )


async def collect(wire: Wire, queue: str, wanted: Collection[str]) -> list[Seen]:
    """Take from a queue until every correlation id in `wanted` has come.

    One may come twice: RabbitMQ ends the worker's connection over some of the corpus, and what is on its way then is
    published again.
    """
    taken: dict[str, Seen] = {}

    async def has_all() -> bool:
        for seen in await wire.take_all(queue):
            assert correlation(seen) in wanted
            taken[correlation(seen)] = seen
        return taken.keys() == set(wanted)

    try:
        await eventually(has_all, f"every message on {queue}")
    except pytest.fail.Exception:
        pytest.fail(f"missing on {queue}: {sorted(set(wanted) - taken.keys())}")
    return list(taken.values())


def correlation(seen: Seen) -> str:
    return str(seen.properties.correlation_id)


def numbers(text: str) -> list[int]:
    """The numbers in what a bot said before the text."""
    return [int(number) for number in re.findall(r"\d+", text.partition(":")[0])]


def assert_dead_letters(dead: Sequence[Seen], published: dict[str, Published]) -> None:
    for seen in dead:
        hostile = REFUSED[correlation(seen)]
        sent = published[hostile.name]
        headers = seen.properties.headers or {}
        assert headers["x-switchboard-reason"] == hostile.expected, hostile.name
        assert str(headers["x-switchboard-detail"]).isprintable(), hostile.name
        assert seen.body == sent.body, hostile.name
        assert without_reason(seen.properties) == without_reason(sent.properties), hostile.name
        assert headers.get("x-switchboard-expiration") == sent.properties.expiration


def without_reason(properties: commands.Basic.Properties) -> bytes:
    """The properties as bytes, without what the worker and the quorum queue add, or may not be one of a dead letter."""
    headers = {
        key: value
        for key, value in sorted((properties.headers or {}).items())
        if not key.startswith("x-switchboard-") and key != "x-delivery-count"
    }
    kept = commands.Basic.Properties()
    for name in NAMES:
        setattr(kept, name, getattr(properties, name))
    kept.headers, kept.expiration = headers, None
    return kept.marshal()


def assert_replies(replies: Sequence[Seen], senders: Mapping[str, HostileInput]) -> None:
    for seen in replies:
        hostile, reply = senders[correlation(seen)], decode_reply(seen.body)
        if hostile.is_answered:
            assert (reply.status, reply.turn, reply.ctx_id) == ("ok", 1, hostile.ctx_id), hostile.name
            assert reply.message is not None
            if (says := hostile.answer.get("says")) is not None:
                assert str(reply.message.text).endswith(f"1: {says}"), hostile.name
            assert hostile.answer.get("misc", {}).items() <= (reply.misc or {}).items(), hostile.name
        else:
            assert reply.error is not None, hostile.name
            assert reply.error.code == hostile.expected, hostile.name
            assert reply.error.detail.isprintable(), hostile.name


async def assert_every_dialog_goes_on(client: BrokerClient, store: RedisStore) -> None:
    """What was passed on is one turn of its dialog, or none where it was refused after all; the next is answered."""
    replies = await asyncio.gather(
        *(client.ask("still here", hostile.ctx_id, timeout=SECONDS) for hostile in PASSED_ON)
    )
    for hostile, reply in zip(PASSED_ON, replies, strict=True):
        assert reply.error is None, (hostile.name, reply.error)
        assert reply.turn == (2 if hostile.is_answered else 1), hostile.name
        stored = await store.peek(hostile.ctx_id, history=10)
        assert stored is not None
        context = records.read_context(hostile.ctx_id, stored.version, stored.main, stored.turns)
        assert hostile.answer.get("misc", {}).items() <= context.misc.items(), hostile.name


def assert_clean_log(log: str) -> None:
    assert UNPICKLING not in log
    assert not (ROOT / PICKLED).exists()
    for line in log.splitlines(keepends=True):
        assert line.removesuffix("\n").isprintable(), repr(line)
        assert LINE.match(line), repr(line)
