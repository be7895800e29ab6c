"""What the fault tests share: links that can be cut, bots that note what they are asked, workers inside the test.

A proxy stands between the product and its server, one for each of a broker's two connections, so that a test can break
one direction and leave the other. The contexts in the store are the account of what was applied, and in which order.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiormq

from interfaces.brokers import Broker, Channel, Delivery, QueueState
from interfaces.brokers.rabbitmq import RabbitMQBroker, RabbitMQChannel
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import Unroutable
from interfaces.reply_bodies import Reply
from interfaces.topology import Topology
from tests.integration.redis_probes import proxied
from tests.services.proxy import TcpProxy
from worker.records import read_context
from worker.running import Worker
from worker.settings import Settings, load_settings
from worker.stores import ContextStore

SHARDS = 4
PATIENCE = 60.0


class Links:
    """A RabbitMQ broker whose connections each go through a proxy of their own."""

    def __init__(self, broker: "ObservedBroker", consuming: TcpProxy, publishing: TcpProxy) -> None:
        self.broker = broker
        self.consuming = consuming
        self.publishing = publishing

    def named(self, which: str) -> list[TcpProxy]:
        """The proxies of "consuming", "publishing" or "both"."""
        known = {"consuming": self.consuming, "publishing": self.publishing}
        return list(known.values()) if which == "both" else [known[which]]


class ObservedBroker(RabbitMQBroker):
    """RabbitMQ that counts what is consumed anew, keeps the channels, and can be made blind to consumers."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.consumed: Counter[str] = Counter()
        self.channels: dict[str, Channel] = {}
        self.is_blind = False

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> Channel:
        channel = await super().consume(queue, prefetch, deliver)
        self.consumed[queue] += 1
        self.channels[queue] = channel
        return channel

    async def cancel_consumer(self, queue: str) -> None:
        """Have the broker forget the consumer of `queue`, without anybody here being told."""
        channel = self.channels[queue]
        assert isinstance(channel, RabbitMQChannel)
        assert isinstance(channel._channel, aiormq.Channel)
        [tag] = channel._channel.consumers
        await channel._channel.basic_cancel(tag)

    async def queue_state(self, queue: str) -> QueueState | None:
        state = await super().queue_state(queue)
        return QueueState(state.messages, 0) if state is not None and self.is_blind else state


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ObservedBroker]:
    """A broker without a proxy, connected."""
    broker = ObservedBroker(url)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncIterator[Links]:
    """A broker on `url` by way of proxies. It is closed by whoever uses it."""
    async with proxied(url) as (consuming, via_consuming), proxied(url) as (publishing, via_publishing):
        broker, other = ObservedBroker(via_consuming, **options), RabbitMQBroker(via_publishing, **options)
        broker._publishing, broker._publisher = other._publishing, other._publisher
        try:
            yield Links(broker, consuming, publishing)
        finally:
            await broker.close()


class Notebook:
    """A bot that writes each message into its context's `misc` and counts how often it was run for it.

    Where `pace` is given, a turn lasts so many seconds, so that a fault finds some running.
    """

    def __init__(self, pace: float = 0) -> None:
        self.runs: Counter[str] = Counter()
        self.running = 0
        self._pace = pace

    async def __call__(self, ctx: Context) -> str:
        text = ctx.last_request.text or ""
        self.runs[f"{ctx.id}: {text}"] += 1
        self.running += 1
        try:
            await asyncio.sleep(self._pace)
        finally:
            self.running -= 1
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return f"noted {text}"


class Gate:
    """A bot whose turns last until the test lets them go, by the text of the message."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def __call__(self, ctx: Context) -> str:
        text = ctx.last_request.text or ""
        self.started.append(text)
        await self._open[text].wait()
        ctx.misc["seen"] = [*ctx.misc.get("seen", []), text]
        return f"noted {text}"

    def open(self, *texts: str) -> None:
        for text in texts:
            self._open[text].set()


def worker_settings(namespace: str, *, redis_url: str = "memory://", **changes: Any) -> Settings:
    """Settings of a worker inside the test; its broker is given to it as an object."""
    return load_settings(namespace=namespace, redis_url=redis_url, **({"shards": SHARDS} | changes))


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker until the block ends, then stop it politely. The task is of `worker.run()`."""
    task = asyncio.create_task(worker.run(), name="worker under test")
    ready = asyncio.create_task(worker.wait_ready())
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield task
    finally:
        ready.cancel()
        worker.stop()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
    """Return when `condition` holds; fail with `what` after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the state looked at belongs to others, who do not announce it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


Sent = Mapping[str, Sequence[str]]
"""The texts sent to each context, in order."""


def rounds(contexts: Iterable[str], numbers: range) -> dict[str, list[str]]:
    """The same numbers, as text, for every context."""
    return {ctx_id: [str(number) for number in numbers] for ctx_id in contexts}


async def send_all(client: BrokerClient, sent: Sent, *, timeout: float = PATIENCE, pause: float = 0) -> None:
    """Send everything, contexts side by side, each context's messages in order, with `pause` seconds between them."""

    async def send(ctx_id: str) -> None:
        for text in sent[ctx_id]:
            await client.send(text, ctx_id, timeout=timeout)
            await asyncio.sleep(pause)

    await asyncio.gather(*(send(ctx_id) for ctx_id in sent))


async def ask_once_bound(client: BrokerClient, text: str, ctx_id: str) -> Reply:
    """Ask as soon as the context's slot leads somewhere: a queue made anew is there a moment before its bindings."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await client.ask(text, ctx_id)
            except Unroutable:
                await asyncio.sleep(0.02)


async def read(store: ContextStore, ctx_id: str) -> Context:
    """The stored context, a new one where there is none."""
    loaded = await store.peek(ctx_id, 1)
    return Context(id=ctx_id) if loaded is None else read_context(ctx_id, loaded.version, loaded.main, loaded.turns)


async def applied(store: ContextStore, sent: Sent, *, seconds: float = PATIENCE) -> None:
    """Wait until every context has as many turns as messages were sent to it; then each was applied once, in order."""
    try:
        async with asyncio.timeout(seconds):
            for ctx_id in sent:  # one at a time: this takes little from what is waited for
                while (await read(store, ctx_id)).current_turn_id < len(sent[ctx_id]):  # noqa: ASYNC110 - to be asked
                    await asyncio.sleep(0.05)
    except TimeoutError:
        turns = [(await read(store, ctx_id)).current_turn_id for ctx_id in sent]
        raise AssertionError(
            f"turns after {seconds} s: {turns}, of {[len(texts) for texts in sent.values()]}"
        ) from None
    contexts = await asyncio.gather(*(read(store, ctx_id) for ctx_id in sent))
    assert {context.id: context.misc.get("seen") for context in contexts} == {key: list(sent[key]) for key in sent}
    assert {context.id: context.current_turn_id for context in contexts} == {key: len(sent[key]) for key in sent}


async def all_settled(broker: Broker, topology: Topology) -> None:
    """Wait until no shard holds anything, and find no dead letter: every request was acknowledged after its reply.

    Unacknowledged requests are not seen: use it when no worker runs, since a closed channel gives them back.
    """
    async with asyncio.timeout(PATIENCE):
        for queue in topology.shard_queues:
            while (state := await broker.queue_state(queue)) is None or state.messages:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
    dead = await broker.queue_state(topology.dead)
    assert dead is not None
    assert dead.messages == 0
