"""Tracing: any header at all is harmless, what is missing is said, and without it nothing of OpenTelemetry is there."""

import asyncio
import os
import subprocess
import sys
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from interfaces import Context
from interfaces.brokers import Channel, Delivery, Outgoing, Properties
from interfaces.client import BrokerClient
from interfaces.errors import SettingsInvalid
from interfaces.tracing import Tracing, carrying, incoming
from worker import Settings, Worker
from worker.tracing import open_traces

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text(), st.lists(st.text()), st.just(GOOD)
)


def delivery(headers: dict[str, Any] | None) -> Delivery:
    return Delivery(b"", Properties(headers=headers), "", "", False, 0, 1, cast("Channel", None))


@given(st.one_of(st.none(), st.fixed_dictionaries({}, optional={"traceparent": values, "tracestate": values})))
def test_no_header_at_all_can_fail_a_turn(headers: dict[str, Any] | None) -> None:
    span = get_current_span(incoming(delivery(headers))).get_span_context()
    assert span.is_valid == ((headers or {}).get("traceparent") == GOOD)


def test_a_good_header_names_the_publishers_span() -> None:
    span = get_current_span(incoming(delivery({"traceparent": GOOD, "tracestate": "a=1"}))).get_span_context()
    assert (f"{span.trace_id:x}", f"{span.span_id:x}", span.is_remote) == (
        "af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        True,
    )
    assert span.trace_state.get("a") == "1"


def test_a_message_carries_nothing_where_there_is_no_span_and_keeps_its_own_headers_where_there_is() -> None:
    message = Outgoing("requests", "1", b"", Properties(headers={"mine": 1}))
    assert carrying(message) is message
    with Tracing(TracerProvider()).sending(message) as traced:
        assert traced.properties.headers is not None
        assert set(traced.properties.headers) == {"mine", "traceparent"}


async def test_a_turn_on_the_embedded_broker_is_traced_from_end_to_end() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing, url = Tracing(provider), f"memory://{os.urandom(4).hex()}"

    async def bot(_: Context) -> str:
        return "done"

    worker = Worker(bot, Settings(amqp_url=url), tracing=tracing)
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    async with BrokerClient(url, tracing=tracing) as client:
        await client.ask("hello", "ada")
        worker.stop()
        await working
    spans = exporter.get_finished_spans()
    assert sorted(span.name for span in spans) == [
        *("commit", "load", "process switchboard.requests", "receive reply queue", "run"),
        *("send reply queue", "send switchboard.requests"),
    ]
    assert len({span.context.trace_id for span in spans if span.context}) == 1


def test_traces_without_the_extra_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsInvalid, match=r"pip install 'switchboard-bots\[tracing\]'"):
        open_traces("test")
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_TRACES"):
        Worker(lambda ctx: None, Settings(traces=True))


def test_without_traces_nothing_of_opentelemetry_is_imported() -> None:
    code = """
import sys
import worker.cli.run, worker.cli.edge, worker.cli.send
from worker import Settings, Worker
async def bot(ctx): ...
Worker(bot, Settings())
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
