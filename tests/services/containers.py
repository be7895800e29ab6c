"""RabbitMQ and Redis in containers, through testcontainers.

The images come from SWITCHBOARD_TEST_RABBITMQ_IMAGE and SWITCHBOARD_TEST_REDIS_IMAGE; the defaults are the ones that
`deploy/test-images/build.sh` builds. A missing `switchboard-test:` image is built where that can be done (root,
debootstrap: a minute or two, once), any other is pulled. Host ports are fixed, so a URL survives a restart, and a
guard process removes each container when the test run ends, however it ends. Called by `tests/services/choice.py`.
"""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# testcontainers reads these when it is imported. Its own clean-up container would have to be pulled, and the host it
# guesses from inside another container is not always one that can be reached.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")

import docker
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.container import DockerContainer

from tests.services.packages import CannotProvide
from tests.services.servers import STOP_SECONDS, Broker, Server, free_port, wait_until_ready

BUILD_SCRIPT = Path(__file__).parents[2] / "deploy" / "test-images" / "build.sh"
BUILD_SECONDS = 900
LOCAL_IMAGES = "switchboard-test:"
SUITES = {"rabbitmq-3.10": "bookworm", "redis-7.0": "bookworm"}
SUITES |= {"rabbitmq-4.0": "trixie", "redis-8.0": "trixie", "valkey-8.1": "trixie"}
RABBITMQ_IMAGE = f"{LOCAL_IMAGES}rabbitmq-3.10"
REDIS_IMAGE = f"{LOCAL_IMAGES}redis-7.0"

GUARD = """
import docker, sys
sys.stdin.read()
docker.from_env().api.remove_container(sys.argv[1], force=True, v=True)
"""


class ContainerServer(Server):
    """One server in one container."""

    def __init__(self, image: str, port: int, url: str) -> None:
        host_port = free_port()
        self.url = url.format(port=host_port)
        container = DockerContainer(image)
        # `with_bind_ports` knows no host address, and a server without a password belongs on loopback.
        ports: dict[str, Any] = container.ports
        ports[f"{port}/tcp"] = ("127.0.0.1", host_port)
        self._container = container.start().get_wrapped_container()
        self._guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, str(self._container.id)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait()

    def start_now(self) -> None:
        self._container.start()
        self._wait()

    def stop_now(self) -> None:
        self._container.stop(timeout=STOP_SECONDS)

    def kill_now(self) -> None:
        self._container.kill()

    def remove_now(self) -> None:
        # Closes the pipe that the guard reads to its end, and waits for the guard.
        with self._guard:
            pass

    def _wait(self) -> None:
        try:
            wait_until_ready(self.url, self._log_end, self._exited)
        except (TimeoutError, RuntimeError):
            self.remove_now()
            raise

    def _log_end(self) -> str:
        log = self._container.logs(tail=40)
        assert isinstance(log, bytes)
        return log.decode(errors="replace")

    def _exited(self) -> bool:
        self._container.reload()
        return bool(self._container.status == "exited")


class ContainerBroker(ContainerServer, Broker):
    """A RabbitMQ node in a container."""

    def rabbitmqctl_now(self, *args: str) -> str:
        code, output = self._container.exec_run(["rabbitmqctl", *args])
        assert isinstance(output, bytes)
        text = output.decode(errors="replace")
        if code != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)} failed: {text}")
        return text


class Containers:
    """Gives servers in containers. Raises `CannotProvide` where no engine answers or an image cannot be had."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.rabbitmq_image = environ.get("SWITCHBOARD_TEST_RABBITMQ_IMAGE", RABBITMQ_IMAGE)
        self.redis_image = environ.get("SWITCHBOARD_TEST_REDIS_IMAGE", REDIS_IMAGE)
        self.description = f"containers {self.rabbitmq_image} and {self.redis_image}"
        # It announces every container, and warns of what the environment above decided.
        logging.getLogger("testcontainers").setLevel(logging.ERROR)
        client = connect(environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
        with contextlib.closing(client):
            for image in (self.rabbitmq_image, self.redis_image):
                _get_image(client, image)

    def broker(self) -> Broker:
        return ContainerBroker(self.rabbitmq_image, 5672, "amqp://guest:guest@127.0.0.1:{port}/")

    def redis(self) -> Server:
        return ContainerServer(self.redis_image, 6379, "redis://127.0.0.1:{port}/0")


def connect(host: str) -> docker.DockerClient:
    """The engine at `host`. Raises `CannotProvide` where none answers."""
    try:
        if host.startswith("unix://"):
            # Asked first by hand: where nobody listens, the library leaves its socket open behind its exception.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(host.removeprefix("unix://"))
        client = docker.from_env(timeout=STOP_SECONDS * 2)
        client.ping()
    except (DockerException, OSError) as error:
        raise CannotProvide(f"no container engine answers at {host} ({error})") from error
    return client


def _get_image(client: docker.DockerClient, image: str) -> None:
    try:
        client.images.get(image)
    except ImageNotFound:
        if image.startswith(LOCAL_IMAGES):
            _build(SUITES.get(image.removeprefix(LOCAL_IMAGES)), image)
        else:
            _pull(client, image)


def _pull(client: docker.DockerClient, image: str) -> None:
    try:
        client.images.pull(image)
    except (DockerException, OSError) as error:
        raise CannotProvide(f"image {image} is not here and cannot be pulled: {error}") from error


def _build(suite: str | None, image: str) -> None:
    if suite is None:
        raise CannotProvide(f"there is no image {image}; {BUILD_SCRIPT.name} builds {', '.join(sorted(SUITES))}")
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise CannotProvide(f"image {image} is not here, and building it needs root and debootstrap (make test-images)")
    try:
        done = subprocess.run([BUILD_SCRIPT, suite], capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise CannotProvide(f"image {image} was not built within {BUILD_SECONDS} s") from error
    if done.returncode != 0:
        raise CannotProvide(f"image {image} could not be built: {(done.stdout + done.stderr)[-500:]}")
