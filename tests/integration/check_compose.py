"""The Compose files as a stranger uses them, from a clone to an answer: the commands are those in their first lines.

`make containers-check` runs this where a container engine with Compose 2 answers; it is not collected by itself.
"""

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.services.compose import ROOT, Compose, build_prometheus_image, opened
from tests.services.containers import Containers
from tests.services.packages import CannotProvide
from tests.services.prometheus import deployed_rules
from tests.services.worker_image import build_worker_image, engine

pytestmark = pytest.mark.timeout(600)

FILES = {"compose.yaml": ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3"), "compose.one-node.yaml": ("rabbitmq-1",)}


@pytest.fixture(scope="module")
def images() -> tuple[str, str]:
    """RabbitMQ's and Redis' image; the others are built."""
    try:
        build_worker_image(engine())
        build_prometheus_image()
        containers = Containers(os.environ)
    except CannotProvide as error:
        pytest.fail(f"no images: {error}")
    return containers.rabbitmq_image, containers.redis_image


@pytest.fixture(params=FILES)
def project(request: pytest.FixtureRequest, images: tuple[str, str]) -> Iterator[Compose]:
    """The project of one file."""
    with opened(request.param, *images) as project:
        yield project


def commands(file: str) -> list[str]:
    """What the file tells its reader to type."""
    return re.findall(r"^#     (.+)$", (ROOT / "deploy" / file).read_text(), re.MULTILINE)


def until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(1)


def asked(project: Compose, path: str, **parameters: str) -> list[dict[str, Any]]:
    """What Prometheus tells."""
    url = f"http://127.0.0.1:{project.prometheus_port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        data = json.load(answer)["data"]
    return list(data.get("result") or data.get("groups") or ())


def test_from_a_clone_to_an_answer_and_to_an_end_in_order(project: Compose) -> None:
    file = project.file
    secrets, up, send = commands(file)
    assert up == f"docker compose -f deploy/{file} up --build --detach"
    assert send == f'docker compose -f deploy/{file} run --rm operator send ada "Hello"'
    subprocess.run([secrets], cwd=project.directory, check=True)
    # Grafana's image cannot be made here, so the services are named that need it not.
    named = ["worker", "prometheus"] if file == "compose.yaml" else []
    project.run("up", "--build", "--detach", *named)
    answer = project.run("run", "--rm", "operator", "send", "ada", "Hello")
    assert answer == "Welcome! Small, medium or large?\n"
    assert "1" in project.run("run", "--rm", "operator", "context", "show", "ada")

    running = project.run("exec", "rabbitmq-1", "rabbitmqctl", "-q", "--formatter", "json", "cluster_status")
    assert sorted(json.loads(running)["running_nodes"]) == [f"rabbit@{node}" for node in FILES[file]]
    users = project.run("exec", "rabbitmq-1", "rabbitmqctl", "-q", "--formatter", "json", "list_users")
    assert "guest" not in {user["user"] for user in json.loads(users)}
    if file == "compose.yaml":
        until(lambda: len(asked(project, "query", query='up{job="switchboard"} == 1')) == 2, "both workers are scraped")
        until(lambda: len(asked(project, "query", query='up{job="rabbitmq"} == 1')) == 3, "all nodes are scraped")
        until(lambda: len(asked(project, "query", query="switchboard_ready == 1")) == 2, "both are ready")
        groups = asked(project, "rules")
        assert sum(len(group["rules"]) for group in groups) == len(deployed_rules())
    until(lambda: all(each["Health"] == "healthy" for each in project.services("worker")), "workers are healthy")

    began = time.monotonic()
    project.run("stop", "worker")
    assert time.monotonic() - began < 40
    assert {each["ExitCode"] for each in project.services("worker")} == {0}
