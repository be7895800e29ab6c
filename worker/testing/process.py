"""One worker as a process that can die: what is left of it then runs on in this interpreter, and reaches nothing.

Both seams are wrapped. Every call of a dead process waits until its task is cancelled, which is never far away, and so
do answers that come after its death. The steps of a turn are seen here, from outside: the product holds no fault
points.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol, cast

from interfaces.brokers import Broker, Channel, Delivery, Outgoing
from worker.running import Worker
from worker.settings import Settings
from worker.stores import ContextStore, Loaded, Turn
from worker.testing.crashes import Step


class Observer(Protocol):
    """Who is told what a process is about to do, and decides whether it dies first."""

    async def before(self, step: Step, request_id: str | None) -> None:
        """A turn is about to take a step."""

    def over(self, request_id: str | None) -> None:
        """A request was acknowledged."""


class Process:
    """A worker, alive until `die`.

    :param broker: of this process alone; it is closed with the process.
    :param store: shared with other processes.
    """

    def __init__(self, bot: Any, settings: Settings, broker: Broker, store: ContextStore, observer: Observer) -> None:
        self._broker = broker
        self._store = store
        self._name: str | None = None
        self._observer = observer
        self.settings = settings
        self.is_dead = False
        self.worker = Worker(
            bot,
            settings,
            # Protocols whose every method is found by `__getattr__`, those of later versions included.
            broker=cast("Broker", _BrokerSeam(broker, self)),
            store=cast("ContextStore", _StoreSeam(store, self)),
        )

    async def die(self) -> None:
        """Let the servers see what they see of a process that was killed. Nothing here waits."""
        self.is_dead = True
        await self._broker.close()  # Connections end; what was not acknowledged is first in its queue again.
        if self._name is not None:
            # As if the seconds were over that it stays on the list. Others would wait for it before they balance.
            await self._store.withdraw(self._name)

    def announced(self, name: str) -> None:
        """Note under which name the worker is on the list of workers."""
        self._name = name

    async def live(self) -> None:
        """Return where the process lives. Where it is dead, wait for the cancellation, or be done if it is here."""
        if self.is_dead:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            await asyncio.get_running_loop().create_future()

    async def before(self, step: Step, request_id: str | None) -> None:
        """A turn is about to take a step, if it lives so long."""
        await self.live()
        await self._observer.before(step, request_id)
        await self.live()

    def over(self, request_id: str | None) -> None:
        """A request was acknowledged."""
        self._observer.over(request_id)


class _Seam:
    """What a process sees of a server: the server's own methods for as long as the process lives."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return self._while_alive(attribute) if inspect.iscoroutinefunction(attribute) else attribute

    def _while_alive(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._process.live()
            answer = await method(*args, **kwargs)
            await self._process.live()
            return answer

        return call


class _StoreSeam(_Seam):
    def __init__(self, inner: Any, process: Process) -> None:
        super().__init__(inner, process)
        # A turn may load more than once: as a suspect, and before each run after a failure. That is one step.
        self._loaded: set[str] = set()
        self._run: set[str] = set()

    async def load(self, ctx_id: str, request_id: str, *, attempt: str, **more: Any) -> Loaded:
        await self._once(self._loaded, attempt, "load", request_id)
        loaded: Loaded = await self._inner.load(ctx_id, request_id, attempt=attempt, **more)
        # A suspect is loaded once more when it is alone, and runs then.
        if loaded.reply is None and loaded.starts <= more["counted"]:
            await self._once(self._run, attempt, "run", request_id)
        return loaded

    async def _once(self, seen: set[str], attempt: str, step: Step, request_id: str) -> None:
        if attempt in seen:
            await self._process.live()
            return
        seen.add(attempt)
        await self._process.before(step, request_id)

    async def commit(self, turn: Turn) -> bytes:
        await self._process.before("commit", turn.request_id)
        reply: bytes = await self._inner.commit(turn)
        return reply

    async def announce(self, worker: str, info: bytes, lives_for: float) -> dict[str, bytes]:
        await self._process.live()
        self._process.announced(worker)
        living: dict[str, bytes] = await self._inner.announce(worker, info, lives_for)
        return living


class _BrokerSeam(_Seam):
    async def publish(self, message: Outgoing) -> None:
        # The sender's id for a request stands in its dead letter too: that is no reply.
        if message.exchange != self._process.settings.topology.dead:
            await self._process.before("publish", message.properties.correlation_id)
        await self._process.live()
        await self._inner.publish(message)
        await self._process.live()

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        await self._process.live()

        def deliver_here(delivery: Delivery) -> None:
            deliver(replace(delivery, channel=channel))

        consuming = await self._inner.consume(queue, prefetch, deliver_here)
        channel = cast("Channel", _ChannelSeam(consuming, self._process))
        return channel


class _ChannelSeam(_Seam):
    async def ack(self, delivery: Delivery) -> None:
        request_id = delivery.properties.message_id
        await self._process.before("ack", request_id)
        await self._inner.ack(delivery)
        self._process.over(request_id)
