"""Answers /metrics, /healthz and /readyz over HTTP, from threads: an event loop that is stuck can still be asked.

Nothing in it reaches into the event loop; it reads what that has left (`worker.health`, `interfaces.metrics`). It
asks nobody who they are, so its address is one that only the monitoring reaches.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from interfaces.errors import SettingsInvalid
from worker.health import Answer
from worker.telemetry_settings import split_address

CLIENT_SECONDS: Final = 10.0
"""For a client to send its request and take the answer."""

Probe = Callable[[], Answer]
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def application(registry: CollectorRegistry, probes: dict[str, Probe]) -> Application:
    """The WSGI application: /metrics, and the probes by their paths, with 200 where all is well and 503 otherwise."""
    metrics: Application = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path not in probes:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /healthz, /readyz\n"]
        is_well, why = probes[path]()
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        start_response("200 OK" if is_well else "503 Service Unavailable", headers)
        return [json.dumps(why).encode() + b"\n"]

    return answer


@contextmanager
def served(address: str, application: Application) -> Iterator[int]:
    """Answer at `host:port` for as long as the block runs; gives the port. Raises `SettingsInvalid`."""
    host, port = split_address(address)
    try:
        server = _Server((host, port), ":" in host)
    except OSError as error:
        raise SettingsInvalid(f"SWITCHBOARD_HEALTH_ADDRESS: cannot listen on {address}: {error}") from error
    server.set_app(application)
    threading.Thread(target=server.serve_forever, name="health server", daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in `http.server`
        """Probes come every few seconds: nothing is logged."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], is_v6: bool) -> None:
        self.address_family = socket.AF_INET6 if is_v6 else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # As `HTTPServer` does, without its look-up of the host's own name: that can take seconds where there is no DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()
