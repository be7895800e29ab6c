"""What a test may do with a RabbitMQ or Redis server, wherever it runs: use its URL, stop, kill, start and ask it.

A server is up only once it has answered a real handshake (AMQP open, Redis PING), and its URL survives a restart.
`local.py` and `containers.py` give the two kinds that can be restarted; `Given` is one that belongs to somebody else.
"""

import asyncio
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import aiormq
import redis

START_SECONDS = 90
STOP_SECONDS = 40
# Below Linux's range for outgoing connections, so that nobody takes the port while its server is stopped.
PORTS = range(20_000, 32_000)


class Server(ABC):
    """One server. The `..._now` methods block; tests use the coroutines of the same names."""

    url: str

    async def start(self) -> None:
        """Start it and return when it answers. Raises `TimeoutError` or `RuntimeError` with its log."""
        await asyncio.to_thread(self.start_now)

    async def stop(self) -> None:
        """Stop it in an orderly way and return when it is gone."""
        await asyncio.to_thread(self.stop_now)

    async def kill(self) -> None:
        """Kill it with SIGKILL: nothing is flushed, no connection is closed politely."""
        await asyncio.to_thread(self.kill_now)

    async def restart(self) -> None:
        """Stop and start it; data on its disk stays."""
        await asyncio.to_thread(self.stop_now)
        await asyncio.to_thread(self.start_now)

    @abstractmethod
    def start_now(self) -> None: ...

    @abstractmethod
    def stop_now(self) -> None: ...

    @abstractmethod
    def kill_now(self) -> None: ...

    @abstractmethod
    def remove_now(self) -> None:
        """End it for good, with its data. May be repeated."""


class Broker(Server):
    """A RabbitMQ server."""

    async def rabbitmqctl(self, *args: str) -> str:
        """What `rabbitmqctl ARGS` prints. Raises `RuntimeError` with its output where it fails."""
        return await asyncio.to_thread(self.rabbitmqctl_now, *args)

    @abstractmethod
    def rabbitmqctl_now(self, *args: str) -> str: ...


class Provider(Protocol):
    """One way to get servers: containers or local processes."""

    description: str

    def broker(self) -> Broker:
        """A new RabbitMQ, running. Raises as `Server.start` does."""

    def redis(self) -> Server:
        """A new Redis, running. Raises as `Server.start` does."""


class Given(Broker):
    """A server named by a URL from outside: tests may use it, and nothing else."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _refuse(self) -> None:
        raise RuntimeError(f"the server at {self.url} is not ours to stop: use `own_broker` or `own_redis`")

    def start_now(self) -> None:
        self._refuse()

    def stop_now(self) -> None:
        self._refuse()

    def kill_now(self) -> None:
        self._refuse()

    def rabbitmqctl_now(self, *args: str) -> str:
        self._refuse()
        raise AssertionError

    def remove_now(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Servers:
    """The pair a test run shares, and where it came from."""

    description: str
    broker: Broker
    redis: Server

    def remove(self) -> None:
        """End both."""
        self.broker.remove_now()
        self.redis.remove_now()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that no test run gives to anybody else.

    Chosen long before it is bound, one of a cluster's twelve was once in use when its node started.
    """
    for port in random.sample(PORTS, k=200):
        # A name of Linux alone, in no directory: it belongs to the network namespace as the port does, and is free
        # again when this process ends, however that is.
        taken = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(f"\0switchboard-test-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.close()
                continue
            _taken.append(taken)
            return port
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop}")


_taken: list[socket.socket] = []
"""As long as one is open, its port is given to nobody."""


def version_at(url: str) -> str:
    """Shake hands with the server at `url` and return its name and version, such as `RabbitMQ 3.10.8`."""
    if url.startswith("amqp"):
        # The AMQP library logs every refused connection as an error, and a starting broker refuses a hundred.
        parts = urlsplit(url)
        socket.create_connection((parts.hostname or "localhost", parts.port or 5672), timeout=5).close()
        # A thread of its own: the caller may be the thread in which a test's event loop waits for its turn.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, _rabbitmq_version(url)).result()
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        client.ping()
        info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


async def _rabbitmq_version(url: str) -> str:
    async with asyncio.timeout(5):
        connection = await aiormq.connect(url)
        try:
            return f"RabbitMQ {connection.server_properties['version']!s}"
        finally:
            await connection.close()


def wait_until_ready(url: str, log_end: Callable[[], str], exited: Callable[[], bool]) -> None:
    """Return when the server answers. Raises `TimeoutError`, or `RuntimeError` when it has exited, with its log."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            version_at(url)
            return
        except (OSError, TimeoutError, aiormq.exceptions.AMQPError, redis.RedisError) as error:
            if exited():
                raise RuntimeError(f"the server for {url} ended while starting:\n{log_end()}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} did not answer within {START_SECONDS} s ({error}):\n{log_end()}") from error
        time.sleep(0.1)
