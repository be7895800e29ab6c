"""One of the Compose files of `deploy/`, brought up with images that are made here: Debian's servers, the worker's own.

Grafana's image cannot be made here, so that service is left out. Each project has a name and ports of its own, and is
removed with its volumes. Used by `tests/integration/check_compose.py`.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.services.packages import CannotProvide
from tests.services.prometheus import promtool
from tests.services.servers import free_port
from tests.services.worker_image import IMAGE, LOCAL_BASE

ROOT = Path(__file__).parents[2]
PROMETHEUS_IMAGE = "switchboard-test:prometheus"
SECONDS = 300
BUILT_FROM = (
    "deploy",
    "interfaces",
    "worker",
    "examples",
    "requirements",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".dockerignore",
)


class Compose:
    """One project."""

    def __init__(self, file: str, directory: Path, rabbitmq: str, redis: str) -> None:
        self.prometheus_port = free_port()
        self._command = ["docker", "compose", "-f", f"deploy/{file}", "-p", f"test-{self.prometheus_port}"]
        self.file = file
        self.directory = directory
        self._environ = {
            **os.environ,
            "RABBITMQ_IMAGE": rabbitmq,
            "REDIS_IMAGE": redis,
            "PROMETHEUS_IMAGE": PROMETHEUS_IMAGE,
            "PYTHON_IMAGE": LOCAL_BASE,
            "WORKER_IMAGE": IMAGE,
            "AMQP_PORT": str(free_port()),
            "PROMETHEUS_PORT": str(self.prometheus_port),
        }

    def run(self, *arguments: str, seconds: float = SECONDS) -> str:
        """What `docker compose ARGUMENTS` prints. Raises `AssertionError` with all of its output where it fails."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}\n{self._logs()}"
        return done.stdout

    def services(self, name: str) -> list[dict[str, Any]]:
        """What `docker compose ps` tells of the containers of one service, those that have ended included."""
        lines = self.run("ps", "--all", "--format", "json", name).splitlines()
        return [json.loads(line) for line in lines]

    def _logs(self) -> str:
        command = [*self._command, "logs", "--tail", "30"]
        done = subprocess.run(
            command, cwd=self.directory, env=self._environ, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout


def build_prometheus_image() -> None:
    """An image of Debian's Prometheus. Raises `CannotProvide`."""
    promtool()  # installs both
    with tempfile.TemporaryDirectory() as directory:
        found = shutil.which("prometheus")
        assert found
        shutil.copy(found, directory)
        (Path(directory) / "Dockerfile").write_text(
            f'FROM {LOCAL_BASE}\nCOPY prometheus /bin/prometheus\nENTRYPOINT ["/bin/prometheus"]\n'
        )
        done = subprocess.run(
            ["docker", "build", "--quiet", "--tag", PROMETHEUS_IMAGE, directory],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    if done.returncode != 0:
        raise CannotProvide(f"no image of Prometheus: {done.stderr[-500:]}")


@contextmanager
def opened(file: str, rabbitmq: str, redis: str) -> Iterator[Compose]:
    """A project that is not up yet, in a copy of `deploy/` without secrets; removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="switchboard-compose-") as directory:
        # What a clone holds, and nothing that lies about here, such as secrets.
        listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *BUILT_FROM]
        kept = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in kept.stdout.splitlines():
            if (ROOT / name).is_file():
                target = Path(directory) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        project = Compose(file, Path(directory), rabbitmq, redis)
        try:
            yield project
        finally:
            project.run("down", "--volumes", "--timeout", "45", "--remove-orphans")
