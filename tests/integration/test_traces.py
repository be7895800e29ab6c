"""Traces on real servers: one from the publisher over the turn and its commit to the reply, and batches that link."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from pamqp import commands

from interfaces import Context
from interfaces.client import BrokerClient
from interfaces.topology import Topology, slot
from interfaces.tracing import Tracing
from tests.integration.conftest import SHARDS
from tests.integration.faults import running, until
from tests.integration.wire import Wire
from tests.services.collector import collecting
from tests.services.command import run_command
from tests.services.processes import WorkerProcess
from worker import Settings, Worker

MakeWorker = Callable[..., Worker]


class Spans:
    """What was traced, by name."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def make_worker(amqp_url: str, redis_url: str, topology: Topology, spans: Spans) -> MakeWorker:
    def make(bot: object, **settings: object) -> Worker:
        urls = {"amqp_url": amqp_url, "redis_url": redis_url, "namespace": topology.namespace, "shards": SHARDS}
        return Worker(bot, Settings(**urls, **settings), tracing=spans.tracing)  # type: ignore[arg-type]

    return make


@pytest.fixture
async def traced_client(amqp_url: str, topology: Topology, spans: Spans) -> AsyncIterator[BrokerClient]:
    async with BrokerClient(amqp_url, namespace=topology.namespace, tracing=spans.tracing) as client:
        yield client


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


async def answer(_: Context) -> str:
    return "done"


async def fail(_: Context) -> str:
    raise ValueError("a secret of the user's")


async def test_one_trace_goes_from_the_publisher_over_the_turn_and_its_commit_to_the_reply(
    spans: Spans, make_worker: MakeWorker, traced_client: BrokerClient, namespace: str
) -> None:
    async with running(make_worker(answer)):
        await traced_client.ask("hello", "ada", request_id="r-1")
        await until(lambda: bool(spans.named(f"process {namespace}.requests")), "the turn is over")
    sent, turn = spans.one(f"send {namespace}.requests"), spans.one(f"process {namespace}.requests")
    received = spans.one("receive reply queue")
    stages = [spans.one(name) for name in ("load", "run", "commit", "send reply queue")]
    assert {trace_of(span) for span in (sent, turn, received, *stages)} == {trace_of(sent)}
    assert (parent_of(sent), parent_of(turn), parent_of(received)) == (None, id_of(sent), id_of(turn))
    assert {parent_of(stage) for stage in stages} == {id_of(turn)}
    assert (sent.kind, turn.kind, received.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)
    assert turn.attributes is not None
    assert turn.attributes["messaging.message.id"] == "r-1"
    assert turn.attributes["messaging.destination.name"] == f"{namespace}.requests"
    times = [time for stage in stages for time in (stage.start_time or 0, stage.end_time or 0)]
    assert times == sorted(times)


async def test_what_travels_together_links_to_every_turn_it_was_for(
    spans: Spans, make_worker: MakeWorker, traced_client: BrokerClient, namespace: str
) -> None:
    users = [f"user {number}" for number in range(20)]
    await asyncio.gather(*(traced_client.send("hello", user) for user in users))
    async with running(make_worker(answer)):
        await until(lambda: len(spans.named(f"process {namespace}.requests")) == len(users), "all turns are over")
    turns = {id_of(turn) for turn in spans.named(f"process {namespace}.requests")}
    for kind, several in (("load", True), ("commit", False), ("write", False)):
        batches = [span for span in spans.all if span.name.startswith("batch ") and kind in span.name]
        linked = {link.context.span_id for batch in batches for link in batch.links}
        assert turns <= linked
        assert all(batch.parent is None for batch in batches)
        if several:
            assert max(len(batch.links) for batch in batches) > 1


async def test_what_a_bot_traces_itself_is_below_its_run(
    spans: Spans, make_worker: MakeWorker, traced_client: BrokerClient
) -> None:
    seen: list[int] = []

    async def bot(_: Context) -> str:
        seen.append(get_current_span().get_span_context().span_id)
        return "done"

    def plain_bot(_: Context) -> str:
        seen.append(get_current_span().get_span_context().span_id)
        return "done"

    for each in (bot, plain_bot):
        async with running(make_worker(each)):
            await traced_client.ask("hello", "ada")
    assert seen == [id_of(span) for span in spans.named("run")]


async def test_a_dead_letter_ends_its_turn_with_its_reason_and_no_span_says_what_was_said(
    spans: Spans, make_worker: MakeWorker, traced_client: BrokerClient, namespace: str
) -> None:
    async with running(make_worker(fail, attempts=1)):
        reply = await traced_client.ask("my secret", "ada-lovelace")
        await until(lambda: bool(spans.named(f"process {namespace}.requests")), "the turn is over")
    assert reply.status == "error"
    turn = spans.one(f"process {namespace}.requests")
    assert turn.status.status_code is StatusCode.ERROR
    assert turn.attributes is not None
    assert turn.attributes["error.type"] == "handler-failed"
    everything = "".join(span.to_json() for span in spans.all)
    assert "secret" not in everything
    assert "ada-lovelace" not in everything


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-zz-zz-01"},
        {"traceparent": "\nFORGED", "tracestate": 5},
        {"traceparent": 7},
        {"traceparent": ["00"], "tracestate": {"a": 1}},
        {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01" + "x" * 10_000},
        {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": "," * 400},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    ],
)
async def test_a_malformed_traceparent_never_fails_a_turn(
    headers: dict[str, object], spans: Spans, make_worker: MakeWorker, wire: Wire, namespace: str
) -> None:
    replies = await wire.listen(f"{namespace}.replies")
    async with running(make_worker(answer)):
        body = b'{"version": 1, "ctx_id": "ada", "message": {"text": "hello"}}'
        properties = commands.Basic.Properties(message_id="r-1", delivery_mode=2, headers=headers)  # type: ignore[arg-type]
        await wire.channel.basic_publish(
            body, exchange=f"{namespace}.requests", routing_key=str(slot("ada")), properties=properties
        )
        await until(lambda: bool(spans.named(f"process {namespace}.requests")), "the turn is over")
    (reply,) = await wire.take_all(replies)
    assert b'"status":"ok"' in reply.body
    turn = spans.one(f"process {namespace}.requests")
    assert reply.properties.headers is not None
    assert str(reply.properties.headers["traceparent"]).startswith(f"00-{trace_of(turn):032x}-{id_of(turn):016x}-")


async def test_without_traces_a_reply_has_no_headers(
    amqp_url: str, redis_url: str, topology: Topology, wire: Wire, client: BrokerClient
) -> None:
    replies = await wire.listen(topology.replies_exchange)
    settings = Settings(amqp_url=amqp_url, redis_url=redis_url, namespace=topology.namespace, shards=SHARDS)
    async with running(Worker(answer, settings)), client.replies() as answers:
        await client.send("hello", "ada")
        await anext(answers)
    (reply,) = await wire.take_all(replies)
    assert not reply.properties.headers


async def test_commands_send_their_spans_to_a_collector(
    processes: list[WorkerProcess], worker_settings: dict[str, str], namespace: str
) -> None:
    with collecting() as collector:
        settings = {**worker_settings, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "SWITCHBOARD_TRACES": "1"}
        worker = await WorkerProcess.start(["-m", "worker.cli", "run", "tests.bots.echoing:bot"], settings)
        processes.append(worker)
        await worker.ready()
        done = await run_command("send", "ada", "hello", settings=settings)
        assert done.returncode == 0, done.stderr
        assert await worker.stop() == 0
    ((publisher, sent),) = collector.named(f"send {namespace}.requests")
    ((service, turn),) = collector.named(f"process {namespace}.requests")
    ((receiver, received),) = collector.named("receive reply queue")
    ((_, committed),) = collector.named("commit")
    assert (publisher, service, receiver) == ("switchboard-send", "switchboard-worker", "switchboard-send")
    assert {span.trace_id for span in (turn, committed, received)} == {sent.trace_id}
    assert (turn.parent_span_id, committed.parent_span_id) == (sent.span_id, turn.span_id)
    assert received.parent_span_id == turn.span_id
