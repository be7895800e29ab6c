"""Workers, their servers, and a Prometheus that watches them all, with users who write all the time.

The servers are well when a `World` begins; what becomes of them is the business of whoever uses it.
Used by the causes of alerts, by `tests/integration/test_prometheus.py` and `test_runbook.py`.
"""

import asyncio
import itertools
import re
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from interfaces.client import BrokerClient
from interfaces.errors import SwitchboardError
from tests.services.local import LocalRedis
from tests.services.processes import WorkerProcess
from tests.services.prometheus import MeasuredBroker, Prometheus
from tests.services.servers import free_port

BOT: Final = "tests.bots.troubled:answer"
TRAFFIC_PAUSE: Final = 0.05
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Servers:
    """The two that tell metrics or are told of in them."""

    broker: MeasuredBroker = field(default_factory=MeasuredBroker)
    redis: LocalRedis = field(default_factory=LocalRedis)


@asynccontextmanager
async def running_servers() -> AsyncIterator[Servers]:
    """Both, until the block ends."""
    servers = Servers()
    try:
        await servers.broker.start()
        await servers.redis.start()
        yield servers
    finally:
        await asyncio.to_thread(servers.broker.remove_now)
        await asyncio.to_thread(servers.redis.remove_now)


class World:
    """One fleet on these servers.

    :param workers: how many start with it.
    :param settings: of each worker, by their names without prefix.
    :param arguments: of `switchboard run`, beside the bot.
    :param url_options: appended to RabbitMQ's URL.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        workers: int = 1,
        settings: dict[str, object] | None = None,
        arguments: tuple[str, ...] = (),
        url_options: str = "",
    ) -> None:
        self.servers = servers
        self.workers: list[WorkerProcess] = []
        self._settings = {"shards": 4, **(settings or {})}
        self._arguments = arguments
        self._amqp_url = f"{servers.broker.url}{url_options}"
        self._ports = [free_port() for _ in range(workers)]
        self.client = BrokerClient(servers.broker.url, timeout=PATIENCE)
        self.prometheus = Prometheus(
            {
                "switchboard": [f"127.0.0.1:{port}" for port in self._ports],
                "rabbitmq": [f"127.0.0.1:{servers.broker.metrics_port}"],
            }
        )
        self._stack = AsyncExitStack()

    @property
    def settings(self) -> dict[str, str]:
        """The environment of every process of it."""
        own = {"amqp_url": self._amqp_url, "redis_url": self.servers.redis.url}
        return {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in {**own, **self._settings}.items()}

    async def start_worker(self, port: int | None = None) -> WorkerProcess:
        """One more worker; Prometheus knows those of the beginning alone."""
        probed = {} if port is None else {"SWITCHBOARD_HEALTH_ADDRESS": f"127.0.0.1:{port}"}
        arguments = ["-m", "worker.cli", "run", BOT, *self._arguments]
        worker = await WorkerProcess.start(arguments, self.settings | probed)
        self.workers.append(worker)
        return worker

    async def send(self, *texts: str, contexts: int = 1) -> None:
        """Send these texts to so many contexts, one after the other in each."""

        async def send(ctx_id: str) -> None:
            for text in texts:
                await self.client.send(text, ctx_id)

        await asyncio.gather(*(send(f"{texts[0][:20]} {number}") for number in range(contexts)))

    def told(self, number: int, metric: str) -> float:
        """What one of the first workers tells of one metric without labels, now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[number]}/metrics", timeout=5) as answer:
            found = re.search(rf"(?m)^{metric} (\S+)$", answer.read().decode())
        assert found, metric
        return float(found[1])

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self.prometheus.remove_now)
            stack.push_async_callback(self._end_workers)
            for port in self._ports:
                await self.start_worker(port)
            await self._ready()
            await self.client.open()
            stack.push_async_callback(self.client.close)
            traffic = asyncio.create_task(self._write_all_the_time(), name="traffic")
            stack.callback(traffic.cancel)
            await self.prometheus.start()
            # Five scrapes of all of them: a rate has something to begin from.
            seen = f'sum(count_over_time(up{{job="switchboard"}}[1h])) >= {5 * len(self._ports)}'
            await until(lambda: bool(self.prometheus.query(seen)), "Prometheus scrapes")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _ready(self) -> None:
        try:
            await until(lambda: all(map(is_ready, self._ports)), "every worker is ready")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *(worker.log for worker in self.workers)])) from None

    async def _write_all_the_time(self) -> None:
        for number in itertools.count():
            # What is away for a moment is what some alerts are about.
            with suppress(SwitchboardError):
                await self.client.send("hello", f"user {number % 50}", timeout=2)
            await asyncio.sleep(TRAFFIC_PAUSE)

    async def _end_workers(self) -> None:
        for worker in self.workers:
            await worker.kill()


def is_ready(port: int) -> bool:
    """Whether the worker at this port says so."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
    except OSError:
        return False
    return True


async def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
    """Return when `condition`, asked in a thread, holds. Raises `AssertionError` with `what` after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - servers and Prometheus set no event
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
