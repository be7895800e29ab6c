"""Round trips at low load: through Switchboard, and through the least that a stateful answer takes.

Both wait on one RabbitMQ and one Redis at the same time; a request goes to either in turn, from one channel, its reply
comes by direct reply-to. What else the machine does meets both.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import uuid4

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands

from interfaces.topology import slot
from tests.bench import measure
from tests.bench.contenders import Task
from tests.bench.contest import OURS, SHARDS, Report, interleaved, settings
from tests.bench.place import Place
from tests.bench.results import Trips
from tests.bench.work import body_of

RPC: Final = "aio-pika RPC, GET and SET"
WAYS: Final = (OURS, RPC)
A_SECOND: Final = 20
"""Requests to each of the two."""
CONTEXTS: Final = 50
WARM_REQUESTS: Final = 20
READY_SECONDS: Final = 30
DIRECT: Final = "amq.rabbitmq.reply-to"
COMMANDS: Final = {
    OURS: ("-m", "worker.cli", "run", "tests.bots.benchmark:answer"),
    RPC: ("-m", "tests.bench.contenders.rpc"),
}


class Caller:
    """Asks over one channel, and knows its replies by their correlation ids."""

    def __init__(self, channel: AbstractChannel, place: Place) -> None:
        self._channel = channel
        self._place = place
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self.rpc_queue = f"{place.topology.namespace}.rpc"

    async def open(self) -> None:
        """Listen for replies."""
        await self._channel.basic_consume(DIRECT, self._on_reply, no_ack=True)

    async def ask(self, way: str, number: int) -> float:
        """Milliseconds from before the publish until the reply is here."""
        ctx_id, identity = f"user-{number % CONTEXTS}", uuid4().hex
        exchange, key = "", self.rpc_queue
        if way == OURS:
            exchange, key = self._place.topology.requests_exchange, str(slot(ctx_id))
        properties = commands.Basic.Properties(
            message_id=identity,
            correlation_id=identity,
            reply_to=DIRECT,
            delivery_mode=2,
            content_type="application/json",
        )
        self._waiting[identity] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await self._channel.basic_publish(
            body_of(ctx_id, str(number)), exchange=exchange, routing_key=key, properties=properties
        )
        await self._waiting[identity]
        return (time.perf_counter() - began) * 1000

    async def _on_reply(self, message: DeliveredMessage) -> None:
        waiting = self._waiting.pop(message.header.properties.correlation_id or "", None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


@asynccontextmanager
async def running(way: str, environ: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The server of one way. Raises `RuntimeError` with its log where no answer came in time."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMANDS[way],
            cwd=measure.ROOT,
            env={**os.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        except TimeoutError as error:
            log.seek(0)
            raise RuntimeError(f"{way} did not answer:\n{log.read().decode(errors='replace')[-3000:]}") from error
        finally:
            await measure._stop(process)


async def one_round(place: Place, seconds: float) -> Trips:
    """Start both servers, ask each in turn for so long, stop them."""
    await place.prepare(SHARDS)
    try:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(aiormq.Connection(place.broker.url))
            caller = Caller(await connection.channel(publisher_confirms=False), place)
            await caller.open()
            await place.declare(caller.rpc_queue)
            task = Task(place.broker.url, place.redis.url, (caller.rpc_queue,), 0.0)
            environ = {**settings(place), **task.environ()}
            pids = [place.broker.pid, place.redis.pid]
            for way in WAYS:
                pids.append((await stack.enter_async_context(running(way, environ))).pid)
                async with asyncio.timeout(READY_SECONDS):
                    for number in range(WARM_REQUESTS):
                        await caller.ask(way, number)
            found = await _timed(caller, pids, seconds)
            await _delete(connection, caller.rpc_queue)
            return found
    finally:
        await place.clear()


async def _delete(connection: aiormq.abc.AbstractConnection, queue: str) -> None:
    await (await connection.channel()).queue_delete(queue)


async def _timed(caller: Caller, pids: list[int], seconds: float) -> Trips:
    """Send at even distances, whether replies are here or not."""

    def known() -> float:
        return sum(map(measure.seconds_of, pids)) + time.process_time()

    asked: dict[str, list[asyncio.Task[float]]] = {way: [] for way in WAYS}
    began, busy, ours = time.monotonic(), measure.busy_seconds(), known()
    for number in range(round(seconds * A_SECOND) * len(WAYS)):
        await asyncio.sleep(began + number / A_SECOND / len(WAYS) - time.monotonic())
        way = WAYS[number % len(WAYS)]
        asked[way].append(asyncio.create_task(caller.ask(way, number // len(WAYS))))
    async with asyncio.timeout(READY_SECONDS):
        ways = {way: [round(each, 3) for each in await asyncio.gather(*tasks)] for way, tasks in asked.items()}
    others = measure.busy_seconds() - busy - (known() - ours)
    return Trips(ways, max(0.0, others / (time.monotonic() - began) / (os.cpu_count() or 1)))


async def hold(place: Place, rounds: int, seconds: float, report: Report) -> tuple[list[Trips], int]:
    """All rounds; those that count, and how many were thrown out."""

    async def once(_: str) -> Trips:
        found = await one_round(place, seconds)
        report.tell("; ".join(f"{way}: {found.median(way):.2f} ms, {found.slow(way):.2f} ms" for way in WAYS))
        return found

    tallies, _ = await interleaved(["round trips"], rounds, once, report)
    return tallies["round trips"].kept, tallies["round trips"].thrown_out
