"""The servers that tests stand on: a restart keeps URL and data, and nothing is left behind when a run is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import aiormq
import pytest
import redis.asyncio

from tests.services.servers import Broker, Server, Servers, version_at

ROOT = Path(__file__).parents[2]
OWNER = """
import signal
from tests.services.choice import choose_provider
server = choose_provider()[0].redis()
print(server.url, flush=True)
signal.pause()
"""


def test_the_servers_of_the_run_answer(servers: Servers) -> None:
    assert version_at(servers.broker.url).startswith("RabbitMQ ")
    assert version_at(servers.redis.url).split()[0] in {"Redis", "Valkey"}


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_broker_keeps_its_url_and_durable_queues_over_a_restart(own_broker: Broker, way: str) -> None:
    await _declare(own_broker.url, passive=False)

    await getattr(own_broker, way)()
    with pytest.raises((OSError, aiormq.exceptions.AMQPError)):
        await _declare(own_broker.url, passive=True)
    await own_broker.start()

    assert await _declare(own_broker.url, passive=True) == "kept"
    assert "kept" in await own_broker.rabbitmqctl("list_queues", "name")


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_redis_keeps_its_url_and_data_over_a_restart(own_redis: Server, way: str) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.set("kept", "1")

        await getattr(own_redis, way)()
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.ping()
        await own_redis.start()

        assert await client.get("kept") == b"1"


def test_a_test_run_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    """The process that owns the servers dies by SIGKILL; only the guards are left to clean up."""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT
    ) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert version_at(url)

        owner.kill()
        owner.wait()

        deadline = time.monotonic() + 20
        while _answers(url) or list(tmp_path.iterdir()):
            assert time.monotonic() < deadline, f"{url} still answers, or has left {list(tmp_path.iterdir())}"


def test_amqplib_is_there_for_node(node_amqplib: Path) -> None:
    subprocess.run(["node", "-e", "require('amqplib')"], cwd=node_amqplib, check=True, timeout=30)


def _answers(url: str) -> bool:
    try:
        version_at(url)
    except redis.exceptions.RedisError:
        return False
    return True


async def _declare(url: str, *, passive: bool) -> str | None:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    declared = await channel.queue_declare("kept", durable=True, passive=passive, arguments={"x-queue-type": "quorum"})
    await connection.close()
    return declared.queue
