"""All worker processes of one supervisor in one answer: each tells its own over a Unix socket, asked when it is needed.

A process that does not answer is left out of the metrics; nothing is kept from before, so nothing of a dead process is
told. Pushing was the alternative: it costs every worker something while nobody asks. Both ends are here: `told_at` in a
worker, `Fleet` in its supervisor.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingMixIn, UnixStreamServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from interfaces.metrics import WORKER_RESTARTS
from worker.exposition import family
from worker.health import Answer, Health

ANSWER_SECONDS: Final = 2.0
"""For one process to tell all of its own, which takes it milliseconds: one that needs longer is stopped or stuck."""

ASKED_AT_ONCE: Final = 32

LABEL: Final = "process"
"""Holds the number that a process has in the supervisor's log."""

Told = Mapping[str, Any]


@contextmanager
def told_at(directory: Path, pid: int, registry: CollectorRegistry, health: Health) -> Iterator[None]:
    """Tell whoever connects to this process's socket in `directory` what it is and counts, while the block runs."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(json.dumps(_told(registry, health)).encode())

    path = _socket(directory, pid)
    path.unlink(missing_ok=True)  # of one that had the same id before
    server = _Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, name="tell the supervisor", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False


def _told(registry: CollectorRegistry, health: Health) -> Told:
    families = [
        (made.name, made.type, made.documentation, [(each.name, each.labels, each.value) for each in made.samples])
        for made in registry.collect()
    ]
    return {"live": health.live(), "ready": health.ready(), "metrics": families}


def _socket(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.socket"


class Fleet(Collector):
    """What the processes of a supervisor tell, together.

    :param count: how many there are to be.
    :param pids: the processes that run now, by number.
    :param restarts: how many were started again so far.
    """

    def __init__(
        self, directory: Path, count: int, pids: Callable[[], Mapping[int, int]], restarts: Callable[[], int]
    ) -> None:
        self._directory = directory
        self._count = count
        self._pids = pids
        self._restarts = restarts

    def collect(self) -> Iterator[Family]:
        """Every family once, with the samples of all processes that answer."""
        merged: dict[str, Family] = {}
        for number, told in self._ask().items():
            for name, kind, documentation, samples in (told or {}).get("metrics", ()):
                made = merged.setdefault(name, Family(name, documentation, kind))
                for sample, labels, value in samples:
                    made.add_sample(sample, {**labels, LABEL: str(number)}, value)
        yield from merged.values()
        yield family(WORKER_RESTARTS, {(): self._restarts()})

    def live(self) -> Answer:
        """Live where every process that runs is, or is only starting. One that died is the supervisor's to mend."""
        asked = self._ask()
        stuck = [number for number, told in asked.items() if told is not None and not told.get("live", (False,))[0]]
        return Answer(not stuck, {"status": "stuck" if stuck else "live", "processes": len(asked), "stuck": stuck})

    def ready(self) -> Answer:
        """Ready where all processes that are to be there are ready."""
        ready = {number: told["ready"] for number, told in self._ask().items() if told and "ready" in told}
        is_ready = sum(is_well for is_well, _ in ready.values()) == self._count
        why = {"status": "ready" if is_ready else "unready", "wanted": self._count}
        return Answer(is_ready, why | {"processes": {number: reasons for number, (_, reasons) in ready.items()}})

    def _ask(self) -> dict[int, Told | None]:
        """By number, what each process tells: `None` where nobody listens, as it starts or has ended, and nothing in it
        from one that listens and is mute."""
        pids = self._pids()
        with ThreadPoolExecutor(ASKED_AT_ONCE, "ask a worker") as pool:
            return dict(zip(pids, pool.map(self._told_by, pids.values()), strict=True))

    def _told_by(self, pid: int) -> Told | None:
        try:
            told: Told = json.loads(_read(_socket(self._directory, pid)))
        except TimeoutError:
            return {}
        except (OSError, ValueError):
            return None
        return told


def _read(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        parts: list[bytes] = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


def touch_while_live(file: Path, fleet: Fleet, every: float, stopping: threading.Event) -> None:
    """Touch `file` every so often while `fleet` is live, until told to stop."""
    while not stopping.wait(every):
        if fleet.live().is_well:
            file.touch()
