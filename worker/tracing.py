"""Where a process' traces go, by its settings, and the store as a traced worker sees it.

Exporter, sampler and the rest are OpenTelemetry's own, set by its OTEL_* variables; only whether there are traces is a
setting of ours. Needs the extra `tracing`. Used by `Worker` and by the commands that publish.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from interfaces.errors import SettingsInvalid
from worker.settings import Settings
from worker.stores import ContextStore, Loaded, Turn

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from interfaces.tracing import Tracing

CLOSING_SECONDS: Final = 3.0
"""For the last spans to go out. A collector that is away must not hold up the end of a process."""


class Traces:
    """The tracing of one process: `tracing` makes its spans, `close` sends the last ones."""

    def __init__(self, provider: "TracerProvider", tracing: "Tracing") -> None:
        self._provider = provider
        self.tracing = tracing

    def close(self) -> None:
        """Send what has not gone out, for a few seconds at most. Never raises."""
        closing = threading.Thread(target=self._provider.shutdown, name="send the last spans", daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)

    async def aclose(self) -> None:
        """As `close`, and the event loop turns meanwhile."""
        await asyncio.to_thread(self.close)


def open_traces(service: str) -> Traces:
    """Traces of a process that OpenTelemetry knows as `service`, where OTEL_SERVICE_NAME says nothing else.

    Raises `SettingsInvalid` where the extra is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsInvalid(
            f"SWITCHBOARD_TRACES: OpenTelemetry is missing ({error}): pip install 'switchboard-bots[tracing]'"
        ) from error
    from interfaces.tracing import Tracing

    resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, Tracing(provider))


@contextmanager
def tracing_of(settings: Settings, service: str) -> Iterator["Tracing | None"]:
    """The tracing of a command while the block runs; `None` where none is wanted. Raises as `open_traces`."""
    if not settings.traces:
        yield None
        return
    traces = open_traces(service)
    try:
        yield traces.tracing
    finally:
        traces.close()


class TracedStore:
    """A `ContextStore` on another one, whose loads and commits are spans of their turns."""

    def __init__(self, store: ContextStore, tracing: "Tracing") -> None:
        self._store = store
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def load(self, ctx_id: str, request_id: str, **how: Any) -> Loaded:
        """See `ContextStore.load`."""
        call = self._store.load(ctx_id, request_id, **how)
        return await self._tracing.stage("load", call, **{"db.system.name": "redis", "db.operation.name": "load"})

    async def commit(self, turn: Turn) -> bytes:
        """See `ContextStore.commit`."""
        call = self._store.commit(turn)
        return await self._tracing.stage("commit", call, **{"db.system.name": "redis", "db.operation.name": "commit"})
