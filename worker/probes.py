"""What a process offers its probes and its scraper: nothing, an address, a file, or a socket of its supervisor's.

Used by `switchboard run`, for the one process of a worker and for the supervisor of several.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client import CollectorRegistry

from interfaces.errors import SettingsInvalid
from worker.exposition import registry_of
from worker.fleet import Fleet, told_at, touch_while_live
from worker.health_server import application, served
from worker.running import Worker
from worker.settings import Settings
from worker.supervisor import Supervisor

TOUCH_SECONDS: Final = 2.5


@contextmanager
def worker_probed(worker: Worker, sockets: Path | None) -> Iterator[None]:
    """Answer for a worker while the block runs; to its supervisor, where there are `sockets`. Raises
    `SettingsInvalid`."""
    address, registry = worker.settings.health_address, registry_of(worker.telemetry.metrics)
    with ExitStack() as stack:
        if sockets is not None:
            stack.enter_context(told_at(sockets, os.getpid(), registry, worker.health))
        elif address is not None:
            probes = {"/healthz": worker.health.live, "/readyz": worker.health.ready}
            stack.enter_context(served(address, application(registry, probes)))
        yield


@contextmanager
def sockets_of(settings: Settings) -> Iterator[Path | None]:
    """A directory that is nobody else's, where workers answer their supervisor; none where nobody would ask."""
    if settings.health_address is None and settings.health_file is None:
        yield None
    else:
        with TemporaryDirectory(prefix="switchboard-") as directory:
            yield Path(directory)


@contextmanager
def supervisor_probed(supervisor: Supervisor, settings: Settings, sockets: Path | None) -> Iterator[None]:
    """Answer for all processes of a supervisor while the block runs. Raises `SettingsInvalid`."""
    with ExitStack() as stack:
        if sockets is not None:
            fleet = Fleet(sockets, settings.processes, supervisor.pids, lambda: supervisor.restarts)
            if settings.health_address is not None:
                registry = CollectorRegistry()
                registry.register(fleet)
                probes = {"/healthz": fleet.live, "/readyz": fleet.ready}
                stack.enter_context(served(settings.health_address, application(registry, probes)))
            if settings.health_file is not None:
                stack.enter_context(_touched(settings.health_file, fleet))
        yield


@contextmanager
def _touched(file: Path, fleet: Fleet) -> Iterator[None]:
    try:
        file.touch()
    except OSError as error:
        raise SettingsInvalid(f"SWITCHBOARD_HEALTH_FILE: {error}") from error
    stopping = threading.Event()
    arguments = (file, fleet, TOUCH_SECONDS, stopping)
    threading.Thread(target=touch_while_live, args=arguments, name="touch the health file", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()
