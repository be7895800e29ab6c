"""Traces: from whoever publishes a request through its turn to whoever gets the reply, joined by `traceparent`.

Spans and their names are OpenTelemetry's messaging conventions; what travels together with others is a span of its own
that links to the turns it was for. No span holds a context id or anything that was said. Nothing here may fail what it
traces: a `traceparent` that is none is as good as absent. Imported only where traces are wanted, which takes the
OpenTelemetry API; handed down in `Telemetry`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer_provider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from interfaces.brokers import Delivery, Outgoing
    from interfaces.envelope import Request

T = TypeVar("T")

HEADERS: Final = ("traceparent", "tracestate")
MAX_HEADER: Final = 512
"""Characters: W3C Trace Context asks nobody to carry more of `tracestate`, and `traceparent` has 55."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TURN: Final = contexts.create_key("switchboard-turn")
"""Where the context of a turn's task holds the turn's span: what travels in a batch links to it."""


class Tracing:
    """Makes the spans.

    :param provider: where they go; by default, wherever the application has OpenTelemetry send its own.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = (provider or get_tracer_provider()).get_tracer("switchboard", version("switchboard-bots"))

    @contextmanager
    def sending(self, message: "Outgoing") -> Iterator["Outgoing"]:
        """A publisher's span around the publishing of a request; gives the message with its `traceparent`."""
        attributes = _attributes("send", message.exchange, message.properties.message_id)
        with self._span(f"send {message.exchange}", SpanKind.PRODUCER, attributes):
            yield carrying(message)

    async def turn(self, request: "Request", run: "Callable[[Request], Awaitable[None]]") -> None:
        """`run(request)` in the turn's span, which follows the publisher's."""
        delivery = request.delivery
        attributes = _attributes("process", delivery.exchange, request.request_id)
        attributes["messaging.rabbitmq.destination.routing_key"] = delivery.routing_key
        attributes["messaging.rabbitmq.message.delivery_tag"] = delivery.tag
        attributes["messaging.destination.subscription.name"] = delivery.channel.queue
        with self._span(f"process {delivery.exchange}", SpanKind.CONSUMER, attributes, incoming(delivery)) as span:
            # Not given back: the task ends with the turn.
            contexts.attach(contexts.set_value(_TURN, span))
            await run(request)

    async def stage(self, name: str, call: Awaitable[T], **attributes: str) -> T:
        """What `call` returns, in a span of its own below the turn's."""
        with self._span(name, SpanKind.CLIENT if attributes else SpanKind.INTERNAL, attributes):
            return await call

    async def replying(self, reply: "Outgoing", publish: "Callable[[Outgoing], Awaitable[None]]") -> None:
        """`publish(reply)` in a span of its own. The reply carries the turn's `traceparent`, the same however often it
        is published."""
        destination = reply.exchange or "reply queue"
        attributes = _attributes("send", destination, reply.properties.message_id)
        carried = carrying(reply)
        with self._span(f"send {destination}", SpanKind.CLIENT, attributes):
            await publish(carried)

    def failed(self, reason: str) -> None:
        """The turn that runs ends without an answer."""
        span = get_current_span()
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", reason)

    def received(self, delivery: "Delivery") -> None:
        """A reply has arrived: a span that follows the turn's."""
        attributes = _attributes("receive", delivery.exchange or "reply queue", delivery.properties.message_id)
        name = f"receive {delivery.exchange or 'reply queue'}"
        with self._span(name, SpanKind.CLIENT, attributes, incoming(delivery)):
            pass

    def member(self) -> Span | None:
        """The span that a batch links to for what the running task puts into it: its turn's, or the current one."""
        span: Any = contexts.get_value(_TURN) or get_current_span()
        return span if span.get_span_context().is_valid else None

    @contextmanager
    def batch(self, name: str, members: Iterable[Span | None]) -> Iterator[None]:
        """A span around what travels together, with a link to each turn it was for; none where it was for no turn."""
        spans = {id(span): span for span in members if span is not None}
        if not spans:
            yield
            return
        links = [Link(span.get_span_context()) for span in spans.values()]
        size = {"messaging.batch.message_count": len(links)}
        with self._span(f"batch {name}", SpanKind.CLIENT, size, Context(), links):
            yield

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        parent: Context | None = None,
        links: list[Link] | None = None,
    ) -> Iterator[Span]:
        # What an error says may be a user's words: its class alone is told.
        with self._tracer.start_as_current_span(
            *(name, parent, kind, attributes, links), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__qualname__)
                raise


def carrying(message: "Outgoing") -> "Outgoing":
    """A message with the headers that name the current span; as it is where there is none."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    if not headers:
        return message
    properties = message.properties
    return replace(message, properties=replace(properties, headers={**(properties.headers or {}), **headers}))


def incoming(delivery: "Delivery") -> Context:
    """The context that a message's headers name; an empty one where they name none."""
    headers = delivery.properties.headers or {}
    carrier = {
        name: value
        for name in HEADERS
        if isinstance(value := headers.get(name), str) and value.isascii() and len(value) <= MAX_HEADER
    }
    return _PROPAGATOR.extract(carrier, Context())


def trace_id() -> str | None:
    """The trace that the running task is in, as its 32 hexadecimal digits."""
    span = get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None


def _attributes(operation: str, destination: str, message_id: str | None) -> dict[str, Any]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.message.id": message_id or "",
    }
