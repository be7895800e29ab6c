"""The worker's image as an operator runs it: read-only root file system, its own user, no capabilities.

Told to stop under load, its first process gets the signal, drains, and ends with code 0 within the grace period; what
it had not begun is answered by the next container, and no turn runs twice. `make containers-check` runs this where a
container engine answers; it is not collected by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import docker
import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.faults import all_settled, applied, rounds, send_all
from tests.services.packages import CannotProvide
from tests.services.worker_image import WorkerContainer, build_worker_image, engine
from worker.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(300)

GRACE_SECONDS = 30
DRAIN_SECONDS = 20
CONTEXTS, MESSAGES = 40, 25

BOT = """
import asyncio

async def bot(ctx):
    await asyncio.sleep(0.1)
    ctx.misc["seen"] = [*ctx.misc.get("seen", []), ctx.last_request.text]
    return f"noted {ctx.last_request.text}"
"""

StartContainer = Callable[..., Awaitable[WorkerContainer]]


@pytest.fixture(scope="module")
def containers() -> Iterator[docker.DockerClient]:
    """The engine, the image built."""
    try:
        client = engine()
        build_worker_image(client)
    except CannotProvide as error:
        pytest.fail(f"no worker image: {error}")
    yield client
    client.close()


@pytest.fixture
def bots(tmp_path: Path) -> Path:
    """The directory of the bot, which the image's user, whom this machine does not know, may read."""
    (tmp_path / "noting.py").write_text(BOT)
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
async def start_container(
    containers: docker.DockerClient, worker_settings: dict[str, str], bots: Path
) -> AsyncIterator[StartContainer]:
    """Starts a container that runs the bot, with these arguments beside; returns when it is ready."""
    started: list[WorkerContainer] = []

    async def start_container(*arguments: str, ready: int = 1, has_init: bool = False) -> WorkerContainer:
        settings = worker_settings | {"SWITCHBOARD_DRAIN_TIMEOUT": str(DRAIN_SECONDS), "SWITCHBOARD_CONCURRENCY": "16"}
        command = ["run", "noting:bot", *arguments]
        container = await asyncio.to_thread(WorkerContainer, containers, command, settings, bots, has_init=has_init)
        started.append(container)
        return await container.logged("ready: ", times=ready)

    yield start_container
    for container in started:
        container.remove()


async def test_its_processes_have_a_user_of_their_own_and_cannot_write_to_the_image(
    start_container: StartContainer,
) -> None:
    container = await start_container()
    refused, *others, user = container.run("touch /opt/switchboard/written /app/written; id -u")
    assert user == "10001"
    assert [line.rpartition(": ")[2] for line in (refused, *others)] == ["Read-only file system"] * 2
    assert await container.stop(GRACE_SECONDS) < GRACE_SECONDS
    assert container.exit_code == 0


@pytest.mark.parametrize("arguments", [(), ("--processes", "2")], ids=["one process", "a supervisor of two"])
@pytest.mark.parametrize("has_init", [False, True], ids=["as process 1", "under an init"])
async def test_told_to_stop_under_load_it_drains_ends_with_0_in_time_and_nothing_is_lost(
    start_container: StartContainer,
    topology: Topology,
    client: BrokerClient,
    broker: RabbitMQBroker,
    store: RedisStore,
    report: Report,
    arguments: tuple[str, ...],
    has_init: bool,
) -> None:
    sent = rounds((f"context {number}" for number in range(CONTEXTS)), range(MESSAGES))
    async with client.replies() as replies:
        first = await start_container(*arguments, ready=2 if arguments else 1, has_init=has_init)
        sending = asyncio.create_task(send_all(client, sent))
        answered = [await anext(replies) for _ in range(CONTEXTS)]
        seconds = await first.stop(GRACE_SECONDS)
        await sending
        assert first.exit_code == 0, first.log
        assert "SIGTERM: stopping" in first.log
        assert "Traceback" not in first.log
        assert seconds < DRAIN_SECONDS
        waiting = [await broker.queue_state(queue) for queue in topology.shard_queues]
        left = sum(state.messages for state in waiting if state)
        assert 0 < left < CONTEXTS * MESSAGES  # it was stopped in the middle of the work

        await start_container(*arguments, ready=2 if arguments else 1)
        await applied(store, sent)
        while len(answered) < CONTEXTS * MESSAGES:
            answered.append(await anext(replies))
    assert len({reply.request_id for reply in answered}) == CONTEXTS * MESSAGES
    await all_settled(broker, topology)
    report(f"ended {seconds:.1f} s after SIGTERM with exit code 0; {left} of {CONTEXTS * MESSAGES} left for the next")
