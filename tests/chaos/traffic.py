"""The outside of a chaos run: publishers that record what they know, a collector of replies, and the final contexts.

Every context has one publisher, which sends in bursts and waits for each confirm before the next request. Most are
patient and publish until confirmed; some give a request up early, so that requests of unknown fate are there too.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from interfaces.brokers import Delivery
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.consumers import KeptConsumer, Watch
from interfaces.errors import BrokerUnavailable, Unroutable
from interfaces.topology import Topology
from tests.chaos.checker import FoundContext, FoundTurn
from tests.chaos.history import Confirmed, Recorder, Replied, Sent, now
from worker import records
from worker.stores import Retention
from worker.stores.redis import RedisStore

CONNECTIONS: Final = 3
LONGEST_BURST: Final = 6
SHARE_OF_IMPATIENT: Final = 0.05
IMPATIENT_SECONDS: Final = 0.3
PATIENT_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 0.2
REPLY_QUEUE: Final = "chaos.reply.collector"


class Publishers:
    """Sends about `rate` requests a second over all contexts from `start` to `stop`."""

    def __init__(self, url: str, topology: Topology, recorder: Recorder, *, contexts: int, rate: float, seed: int):
        self.ctx_ids = [f"ctx-{number:04d}" for number in range(contexts)]
        self.confirmed: set[str] = set()
        self.given_up: set[str] = set()
        self._clients = [BrokerClient(url, namespace=topology.namespace) for _ in range(CONNECTIONS)]
        self._recorder = recorder
        self._pause = contexts * (1 + LONGEST_BURST) / 2 / rate
        self._seed = seed
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._cleaning = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await self._cleaning.enter_async_context(client)
        for number, ctx_id in enumerate(self.ctx_ids):
            publishing = self._publish(self._clients[number % CONNECTIONS], ctx_id)
            self._tasks.append(asyncio.create_task(publishing, name=f"publish to {ctx_id}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cleaning.aclose()

    def stop(self) -> None:
        """Begin no burst any more. Returns at once."""
        self._stopping.set()

    @property
    def unfinished(self) -> int:
        """Contexts whose publisher still waits for a confirm after `stop`. Raises what one failed with."""
        for task in self._tasks:
            if task.done():
                task.result()
        return sum(not task.done() for task in self._tasks)

    async def _publish(self, client: BrokerClient, ctx_id: str) -> None:
        rng = random.Random(f"{self._seed} {ctx_id}")
        number = 0
        while True:
            try:
                async with asyncio.timeout(rng.uniform(0, 2 * self._pause)):
                    await self._stopping.wait()
                    return
            except TimeoutError:
                pass
            for _ in range(rng.randint(1, LONGEST_BURST)):
                number += 1
                patience = IMPATIENT_SECONDS if rng.random() < SHARE_OF_IMPATIENT else PATIENT_SECONDS
                await self._send(client, ctx_id, f"{ctx_id}/{number}", patience)

    async def _send(self, client: BrokerClient, ctx_id: str, request_id: str, patience: float) -> None:
        self._recorder.write(Sent(request_id, ctx_id, now()))
        while True:
            try:
                await client.send(request_id, ctx_id, request_id=request_id, timeout=patience)
            except Unroutable:  # Not every node of a cluster that was restarted has brought its queues yet.
                await asyncio.sleep(AGAIN_SECONDS)
            except BrokerUnavailable:
                self.given_up.add(request_id)
                return
            else:
                self._recorder.write(Confirmed(request_id, now()))
                self.confirmed.add(request_id)
                return


class Collector:
    """Records every reply that reaches the replies exchange, repeated ones included, and acknowledges it after that."""

    def __init__(self, url: str, topology: Topology, recorder: Recorder) -> None:
        self.answered: set[str] = set()
        self._broker = RabbitMQBroker(url)
        self._topology = topology
        self._recorder = recorder
        self._acknowledging: set[asyncio.Task[None]] = set()
        self._consuming: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._broker.open()
        await self._declare()
        kept = KeptConsumer(self._broker, REPLY_QUEUE, 500, self._take, declare=self._declare, watch=Watch(1.0, 120.0))
        self._consuming = asyncio.create_task(kept.run(), name="collect replies")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consuming is not None:
            self._consuming.cancel()
            await asyncio.gather(self._consuming, return_exceptions=True)
        await self._broker.close()

    async def _declare(self) -> None:
        bindings = [(self._topology.replies_exchange, "#")]
        await self._broker.declare_reply_queue(REPLY_QUEUE, timedelta(days=1), bindings, replicated=True)

    def _take(self, delivery: Delivery) -> None:
        request_id, body = delivery.properties.correlation_id or "", delivery.body.decode(errors="backslashreplace")
        self._recorder.write(Replied(request_id, delivery.properties.message_id or "", body, now()))
        self.answered.add(request_id)
        acknowledging = asyncio.create_task(delivery.channel.ack(delivery), name="acknowledge reply")
        self._acknowledging.add(acknowledging)
        acknowledging.add_done_callback(self._acknowledging.discard)


async def read_contexts(url: str, namespace: str, ctx_ids: Sequence[str]) -> dict[str, FoundContext]:
    """The contexts as they are in Redis, all turns of each."""
    store = RedisStore(url, namespace, Retention())
    await store.open()
    try:
        found = {ctx_id: await _read_context(store, ctx_id) for ctx_id in ctx_ids}
    finally:
        await store.close()
    return {ctx_id: context for ctx_id, context in found.items() if context is not None}


async def _read_context(store: RedisStore, ctx_id: str) -> FoundContext | None:
    loaded = await store.peek(ctx_id, history=1_000_000)
    if loaded is None:
        return None
    context = records.read_context(ctx_id, loaded.version, loaded.main, loaded.turns)
    turns = [FoundTurn(number, context.requests[number].text or "") for number in sorted(context.requests)]
    return FoundContext(loaded.version, int(context.misc.get("applied", 0)), turns)
