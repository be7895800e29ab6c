"""Probes of real processes: live while the loop turns, ready while both servers are there, all processes in one."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interfaces.client import BrokerClient
from tests.bots.stuck import STUCK
from tests.integration.conftest import StartWorker
from tests.services.processes import WorkerProcess
from tests.services.scrape import get, sample, scraped
from tests.services.servers import Broker, Server, free_port
from worker.health import STALE_SECONDS

SECONDS = 60


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


async def until(condition: Callable[[], bool], worker: WorkerProcess, what: str) -> None:
    """Return when `condition`, which may ask the worker, holds; no answer counts as no."""

    def holds() -> bool:
        try:
            return condition()
        except (OSError, KeyError):
            return False

    try:
        async with asyncio.timeout(SECONDS):
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - it is another process that is looked at
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {SECONDS} s: {what}\n{worker.log}") from None


async def status(address: str, path: str) -> int:
    return (await asyncio.to_thread(get, address, path))[0]


async def is_ready(address: str, worker: WorkerProcess) -> None:
    await until(lambda: get(address, "/readyz")[0] == 200, worker, "ready")


async def is_unready_but_live(address: str, worker: WorkerProcess, server: str) -> None:
    await until(lambda: f'"{server}": false' in get(address, "/readyz")[1], worker, f"unready for want of {server}")
    assert await status(address, "/readyz") == 503
    assert await status(address, "/healthz") == 200
    assert await asyncio.to_thread(sample, address, "switchboard_server_up", server=server) == 0


@asynccontextmanager
async def stopped(server: Broker | Server) -> AsyncIterator[None]:
    await server.stop()
    try:
        yield
    finally:
        await server.start()


async def test_a_server_that_is_away_makes_a_worker_unready_and_never_dead(
    start_worker: StartWorker, own_broker: Broker, own_redis: Server, address: str
) -> None:
    urls = {"amqp_url": own_broker.url, "redis_url": own_redis.url}
    worker = await start_worker("tests.bots.echoing:bot", health_address=address, **urls)
    await is_ready(address, worker)
    async with stopped(own_redis):
        await is_unready_but_live(address, worker, "redis")
    await is_ready(address, worker)
    async with stopped(own_broker):
        await is_unready_but_live(address, worker, "rabbitmq")
        await until(lambda: sample(address, "switchboard_consumer_up") == 0, worker, "without a consumer")
    await is_ready(address, worker)
    found = await asyncio.to_thread(scraped, address)
    for server in ("rabbitmq", "redis"):
        assert found["switchboard_reconnects_total", frozenset({("server", server)})] >= 1
    assert await worker.stop() == 0


async def test_a_worker_that_waits_for_its_servers_is_live_and_not_ready(
    start_worker: StartWorker, address: str
) -> None:
    nowhere = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    worker = await start_worker("tests.bots.echoing:bot", health_address=address, amqp_url=nowhere)
    await worker.logged("waiting for RabbitMQ")
    assert await status(address, "/healthz") == 200
    assert await status(address, "/readyz") == 503


async def test_an_event_loop_that_is_blocked_is_not_live(
    start_worker: StartWorker, client: BrokerClient, address: str, tmp_path: Path
) -> None:
    file = tmp_path / "alive"
    worker = await start_worker("tests.bots.stuck:block", health_address=address, health_file=file)
    await is_ready(address, worker)
    await client.send(STUCK, "ada")
    await until(lambda: get(address, "/healthz")[0] == 503, worker, "not live")
    assert '"status": "stuck"' in (await asyncio.to_thread(get, address, "/healthz"))[1]
    assert await status(address, "/readyz") == 503
    assert await status(address, "/metrics") == 200
    assert time.time() - file.stat().st_mtime >= STALE_SECONDS - 1


@pytest.fixture
async def two(start_worker: StartWorker, address: str, tmp_path: Path) -> WorkerProcess:
    """Two processes below one supervisor, ready."""
    file = tmp_path / "alive"
    worker = await start_worker("tests.bots.echoing:bot", processes=2, health_address=address, health_file=file)
    await is_ready(address, worker)
    return worker


def pid_of(worker: WorkerProcess, number: int) -> int:
    return int(re.findall(rf" supervisor: worker {number}: process (\d+)$", worker.log, re.MULTILINE)[-1])


async def test_two_processes_are_in_one_scrape_each_with_its_number(
    two: WorkerProcess, client: BrokerClient, address: str
) -> None:
    def turns() -> dict[str, float]:
        found = scraped(address)
        return {
            dict(labels)["process"]: value
            for (name, labels), value in found.items()
            if name == "switchboard_turns_total" and ("outcome", "ok") in labels
        }

    sent, found = 0, {"": 0.0}
    async with asyncio.timeout(SECONDS):
        while not all(found.values()):  # until the second one has got its half of the shards
            await asyncio.gather(*(client.ask("hello", f"user {number}") for number in range(40)))
            sent, found = sent + 40, await asyncio.to_thread(turns)
    assert set(found) == {"1", "2"}
    await until(lambda: sum(turns().values()) == sent, two, "all turns are counted")
    cpu = await asyncio.to_thread(sample, address, "process_cpu_seconds_total", process="2")
    assert cpu > 0
    assert await asyncio.to_thread(sample, address, "switchboard_worker_restarts_total") == 0


async def test_a_process_that_is_stopped_makes_its_supervisor_not_live_and_breaks_no_scrape(
    two: WorkerProcess, address: str, tmp_path: Path
) -> None:
    os.kill(pid_of(two, 1), signal.SIGSTOP)
    try:
        await until(lambda: get(address, "/healthz")[0] == 503, two, "not live")
        assert '"stuck": [1]' in (await asyncio.to_thread(get, address, "/healthz"))[1]
        assert await status(address, "/readyz") == 503
        numbers = {dict(labels).get("process") for _, labels in await asyncio.to_thread(scraped, address)}
        assert numbers == {"2", None}
    finally:
        os.kill(pid_of(two, 1), signal.SIGCONT)
    await is_ready(address, two)
    assert await status(address, "/healthz") == 200


async def test_a_process_that_died_is_started_again_counted_and_no_reason_to_end_the_supervisor(
    two: WorkerProcess, address: str
) -> None:
    os.kill(pid_of(two, 2), signal.SIGKILL)
    while "was killed by SIGKILL" not in two.log:
        assert await status(address, "/healthz") == 200  # before the supervisor knows, too
    await until(lambda: sample(address, "switchboard_worker_restarts_total") == 1, two, "the restart is counted")
    await is_ready(address, two)
    assert await two.stop() == 0


async def test_the_file_of_a_supervisor_is_touched_while_all_its_processes_are_live(
    two: WorkerProcess, address: str, tmp_path: Path
) -> None:
    file = tmp_path / "alive"
    os.utime(file, (0, 0))
    await until(lambda: file.stat().st_mtime > 0, two, "touched")
    os.kill(pid_of(two, 1), signal.SIGSTOP)
    try:
        await until(lambda: time.time() - file.stat().st_mtime > STALE_SECONDS, two, "touched no more")
    finally:
        os.kill(pid_of(two, 1), signal.SIGCONT)  # Stopped, it would outlive its supervisor.


async def test_the_sockets_of_a_supervisor_are_gone_with_it(two: WorkerProcess) -> None:
    sockets = sockets_of(pid_of(two, 1))
    assert len(list(sockets.iterdir())) == 2
    assert oct(sockets.stat().st_mode)[-3:] == "700"
    assert await two.stop() == 0
    assert not sockets.exists()


def sockets_of(pid: int) -> Path:
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return Path(command[command.index("--sockets") + 1])
