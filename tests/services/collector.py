"""A collector of traces for tests: takes what OpenTelemetry's exporters send over OTLP/HTTP, and keeps it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What has come so far."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[tuple[str, Span]] = []
        """Each with the name of the service it came from."""

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[tuple[str, Span]]:
        return [(service, span) for service, span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at an address of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in `http.server`
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
