"""The worker's own image, built by `deploy/Dockerfile`, and containers of it as an operator runs them.

Where its usual base cannot be pulled, the base is made from Debian's packages, once. A container has a read-only root
file system, no capabilities and the host's network, so the servers of the run are where every test finds them; a guard
removes it however the run ends. Used by `tests/integration/check_image.py` and `check_compose.py`.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import docker
from docker.errors import ImageNotFound
from docker.models.containers import Container

from tests.services.containers import BUILD_SCRIPT, BUILD_SECONDS, GUARD, connect
from tests.services.packages import CannotProvide

ROOT = Path(__file__).parents[2]
IMAGE = "switchboard-test:worker"
LOCAL_BASE = "switchboard-python:bookworm"
READY_SECONDS = 60


def engine() -> docker.DockerClient:
    """The container engine. Raises `CannotProvide` where none answers."""
    return connect(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")


def build_worker_image(client: docker.DockerClient) -> str:
    """Build the image on SWITCHBOARD_TEST_PYTHON_IMAGE, or on a base of Debian's packages; its tag.

    Raises `CannotProvide` with the end of the output where that fails.
    """
    base = os.environ.get("SWITCHBOARD_TEST_PYTHON_IMAGE", LOCAL_BASE)
    if base == LOCAL_BASE:
        try:
            client.images.get(base)
        except ImageNotFound:
            _run([str(BUILD_SCRIPT), "--python", base.rpartition(":")[2]])
    # The command, not the library: only that one reads .dockerignore as the README's command does.
    _run(["docker", "build", "--file", "deploy/Dockerfile", "--build-arg", f"BASE={base}", "--tag", IMAGE, "."])
    return IMAGE


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS, env=os.environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotProvide(f"`{' '.join(command)}`: {error}") from error
    if done.returncode != 0:
        raise CannotProvide(f"`{' '.join(command)}` failed: {(done.stdout + done.stderr)[-2000:]}")


class WorkerContainer:
    """One container of the image. The directory with the bot is its working directory, read-only."""

    def __init__(
        self,
        client: docker.DockerClient,
        command: list[str],
        settings: Mapping[str, str],
        bots: Path,
        *,
        has_init: bool,
    ) -> None:
        self.raw: Container = client.containers.run(
            IMAGE,
            command,
            environment=dict(settings),
            network_mode="host",
            volumes={str(bots): {"bind": "/bots", "mode": "ro"}},
            working_dir="/bots",
            init=has_init,
            detach=True,
            read_only=True,
            tmpfs={"/tmp": ""},  # noqa: S108 - inside the container
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        self._guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, str(self.raw.id)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        log = self.raw.logs()
        assert isinstance(log, bytes)
        return log.decode(errors="replace")

    async def logged(self, text: str, *, times: int = 1) -> Self:
        """Return when `text` is in its log so often. Raises `AssertionError` with the log where that is not so."""
        deadline = time.monotonic() + READY_SECONDS
        while (log := await asyncio.to_thread(lambda: self.log)).count(text) < times:
            assert time.monotonic() < deadline, f"not within {READY_SECONDS} s: {text}\n{log}"
            await asyncio.to_thread(self.raw.reload)
            assert self.raw.status == "running", f"it ended:\n{log}"
            await asyncio.sleep(0.1)
        return self

    def run(self, script: str) -> list[str]:
        """The lines that a shell inside writes."""
        output = self.raw.exec_run(["sh", "-c", script]).output
        assert isinstance(output, bytes)
        return output.decode().splitlines()

    async def stop(self, grace: int) -> float:
        """As `docker stop --time GRACE`: SIGTERM, SIGKILL after the grace period. Returns the seconds it took."""
        began = time.monotonic()
        await asyncio.to_thread(self.raw.stop, timeout=grace)
        return time.monotonic() - began

    @property
    def exit_code(self) -> int:
        """Of a container that has ended; 137 where it was killed."""
        self.raw.reload()
        assert self.raw.status == "exited"
        return int(self.raw.attrs["State"]["ExitCode"])

    def remove(self) -> None:
        """End it for good."""
        with self._guard:
            pass
