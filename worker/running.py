"""The worker: the broker's messenger interface, the turn runner, and what holds the two up.

Starts when both servers are there, stops in order when asked, ends with an error when it cannot do its work any more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.brokers import Broker
from interfaces.brokers.opening import open_broker
from interfaces.consumers import Watch
from interfaces.errors import Unavailable
from interfaces.rabbitmq import RabbitMQMessengerInterface
from interfaces.telemetry import Telemetry
from worker.apps import App, HandlerApp, RunnerApp, adapt, load_app
from worker.attachments import open_transfer
from worker.generations import Generations
from worker.health import Health, Pulse
from worker.membership import Membership
from worker.settings import Settings
from worker.stores import ContextStore
from worker.stores.opening import open_store
from worker.tracing import TracedStore, open_traces
from worker.turns import TurnRunner

if TYPE_CHECKING:
    from interfaces.tracing import Tracing

logger = logging.getLogger(__name__)

MAX_BESIDE = 256
"""Turns beside those whose bot runs, as many again at most: their contexts are loaded ahead, or their outcomes are on
their way. A bot that waits 50 ms would otherwise be idle for a third of the time under load."""


class Worker:
    """Runs one bot: takes requests, runs turns, commits, replies.

    :param app: a handler, a pipeline runner, an object with `_run_pipeline`, or `module:attribute` of one.
    :param settings: read from the environment where not given.
    :param broker: used instead of `settings.amqp_url`; opened and closed here.
    :param store: used instead of `settings.redis_url`; opened and closed here.
    :param tracing: used instead of what `settings.traces` asks for.

    Raises `AppInvalid` or `SettingsInvalid` where it cannot be built.
    """

    def __init__(
        self,
        app: Any,
        settings: Settings | None = None,
        *,
        broker: Broker | None = None,
        store: ContextStore | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.settings = settings or Settings()
        self._app = _as_app(app)
        self._traces = open_traces("switchboard-worker") if self.settings.traces and tracing is None else None
        tracing = tracing if self._traces is None else self._traces.tracing
        self.telemetry, self.health = _telemetry_of(self.settings, tracing), Health()
        self._store = _traced(store or open_store(self.settings, self.telemetry), self.telemetry)
        broker = broker or open_broker(
            self.settings.amqp_url.get_secret_value(),
            publish_timeout=self.settings.publish_timeout,
            telemetry=self.telemetry,
        )
        self._transfer = open_transfer(self.settings)
        generations = Generations(broker, self._store, self.settings.topology)
        self._interface = _open_interface(self.settings, broker, generations, self._transfer, self.telemetry)
        self._runner = TurnRunner(
            *(self._app, self._store, self.settings, self._interface.current, self._interface),
            returnable=self._interface.returnable,
            may_run=self._interface.may_run,
            telemetry=self.telemetry,
        )
        self._membership = Membership(self._store, self._interface, generations, self.settings.keys)
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._side_task_error: BaseException | None = None

    async def run(self) -> None:
        """Work until `stop`. Waits for servers that are away, at the start and later.

        Returns when stopped; `unfinished` then tells whether turns were given up. A cancellation gives up running turns
        at once; their requests come again. Raises a `Fatal` error where the work cannot be done.
        """
        pulse = Pulse(self.telemetry, self.health, self._look, self.settings.health_file).start()
        try:
            await self._until_stopped(self._open_servers())
            if not self._stop.is_set():
                await self._work()
        finally:
            pulse.cancel()
            await self._interface.close()
            self._runner.close()
            await self._store.close()
            if self._traces is not None:
                await self._traces.aclose()

    def stop(self) -> None:
        """Stop politely: take nothing more, finish what runs, settle, close. Returns at once, may be repeated."""
        self._stop.set()
        self._interface.stop()

    async def wait_ready(self) -> None:
        """Return once the shards that fall to this worker, be they none, are consumed for the first time."""
        await self._ready.wait()

    @property
    def name(self) -> str:
        """By which the others know it, and dead letters and the log name it."""
        return self._interface.name

    @property
    def consumed(self) -> list[str]:
        """Request queues this worker has a consumer on, those it only waits for included."""
        return self._interface.consumed

    @property
    def owned(self) -> list[str]:
        """Request queues this worker is the owner of, as far as the workers' list goes; the broker decides."""
        return self._membership.owned

    @property
    def unfinished(self) -> int:
        """After `run`: contexts whose turns were given up at the end of the drain timeout."""
        return self._interface.unfinished

    @property
    def left_behind(self) -> int:
        """Runs of the bot that still go on although they were overdue, or cancelled, and their turns are over."""
        return self._runner.runs.left_behind

    def _look(self) -> Mapping[str, bool]:
        """Set the gauges to what they are now; what must be true for being ready."""
        metrics = self.telemetry.metrics
        metrics.namespace_shards, metrics.left_behind = self._interface.topology.shards, self.left_behind
        for server, is_up in self.telemetry.servers.items():
            metrics.server_up[server] = int(is_up())
        self._interface.gauge(metrics)
        servers = {server: bool(up) for server, up in metrics.server_up.items()}
        is_consuming = self._ready.is_set() and bool(metrics.consumer_up)
        return servers | {"consuming": is_consuming, "running": not self._stop.is_set()}

    async def _open_servers(self) -> None:
        await patiently("Redis", self._store.open)
        # What tells nothing of itself is in this process, or its owner's: once open, it is there.
        self.telemetry.servers.setdefault("redis", lambda: True)
        await patiently("RabbitMQ", self._interface.open)
        self.telemetry.servers.setdefault("rabbitmq", lambda: True)
        for told, command in self.settings.unfollowed(self._interface.topology):
            logger.warning("%s: that is used. To change it on the live system, run `%s`", told, command)

    async def _work(self) -> None:
        membership = self._membership
        self._interface.want(())
        side = [
            asyncio.create_task(membership.run(), name="membership"),
            asyncio.create_task(self._announce(membership), name="announce ready"),
            asyncio.create_task(self._transfer.sweep_regularly(), name="sweep attachments"),
            asyncio.create_task(self._runner.runs.watch(), name="watch runs of the bot"),
        ]
        for task in side:
            task.add_done_callback(self._on_side_task_ended)
        try:
            await self._interface.connect(self._runner)
        finally:
            for task in side:
                task.cancel()
            await asyncio.gather(*side, return_exceptions=True)
            await membership.leave()
        if self._side_task_error is not None:
            raise self._side_task_error

    def _on_side_task_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._side_task_error = error
            self.stop()

    async def _announce(self, membership: Membership) -> None:
        await membership.adapted.wait()
        await self._interface.wait_consuming()
        self._ready.set()
        shards, all_shards = len(self._interface.consumed), self._interface.topology.shards
        logger.info("ready: namespace %r, %d of %d shards", self.settings.namespace, shards, all_shards)

    async def _until_stopped(self, opening: Coroutine[Any, Any, None]) -> None:
        """Await `opening`, but no longer than until `stop`."""
        task = asyncio.create_task(opening, name="open servers")
        stopped = asyncio.create_task(self._stop.wait(), name="await stop")
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)


def _traced(store: ContextStore, telemetry: Telemetry) -> ContextStore:
    return store if telemetry.tracing is None else cast("ContextStore", TracedStore(store, telemetry.tracing))


def _telemetry_of(settings: Settings, tracing: "Tracing | None") -> Telemetry:
    telemetry = Telemetry(tracing)
    metrics = telemetry.metrics
    metrics.info = {(version("switchboard-bots"), settings.namespace): 1}
    metrics.turns_limit, metrics.in_flight_bytes_limit = settings.concurrency, settings.in_flight_bytes
    return telemetry


def _open_interface(
    settings: Settings, broker: Broker, queues: Generations, attachments: AttachmentTransfer, telemetry: Telemetry
) -> RabbitMQMessengerInterface:
    return RabbitMQMessengerInterface(
        broker=broker,
        queues=queues,
        batch_size=settings.batch_size,
        concurrency=settings.concurrency + min(settings.concurrency, MAX_BESIDE),
        drain_timeout=settings.drain_timeout,
        watch=Watch(settings.watch_every, settings.watch_lost_after),
        attachments=attachments,
        keys=settings.keys,
        limits=settings.limits,
        in_flight_bytes=settings.in_flight_bytes,
        telemetry=telemetry,
    )


def _as_app(app: Any) -> App:
    if isinstance(app, str):
        return load_app(app)
    return app if isinstance(app, HandlerApp | RunnerApp) else adapt(app)


async def patiently(server: str, opening: Callable[[], Awaitable[None]]) -> None:
    """Open, again and again while the server is away. What is refused is raised at once."""

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("waiting for %s (attempt %d): %s", server, state.attempt_number, error)

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=log,
    )
    await retrying(opening)
