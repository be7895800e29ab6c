"""Feeds mutants to a worker on the memory broker and judges what became of each.

Every one that the broker takes is settled: answered with its reply, or among the dead letters untouched, with the
reason the decoder gives for it. Nothing is logged as an error, no task dies, and every dialog can still be read.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from interfaces.brokers import Delivery, Outgoing
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.context import Context
from interfaces.envelope import decode_request
from interfaces.errors import BrokerRefused, Reason, RequestRejected, Unroutable
from interfaces.messages import Message
from interfaces.reply_bodies import decode_reply, reply_id
from interfaces.topology import Topology
from tests.fuzz.mutation import Mutant
from tests.hostile_inputs import BY_THE_BOT
from worker import records
from worker.running import Worker
from worker.stores import Retention
from worker.stores.memory import MemoryStore
from worker.testing.embedded import KitSettings

TOPOLOGY: Final = Topology("fuzz", shards=4)
REPLY_QUEUE: Final = f"{TOPOLOGY.reply_prefix}fuzz"
MAX_TURNS: Final = 5
SETTLE_SECONDS: Final = 60.0


async def say_back(ctx: Context) -> Message:
    """A bot whose answers hold everything it was sent."""
    request = ctx.last_request
    attachments = list(request.attachments or [])
    return Message(request.text, attachments=attachments or None, misc=request.misc)


@dataclass(slots=True)
class Verdict:
    """What became of a batch."""

    settled: int = 0
    answered: int = 0
    refused_by_broker: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class _Broker(MemoryBroker):
    """Notes which replies are published."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.replies: dict[str | None, bytes] = {}

    async def publish(self, message: Outgoing) -> None:
        if message.exchange != TOPOLOGY.dead:
            self.replies[message.properties.message_id] = message.body
        await super().publish(message)


class _ErrorLog(logging.Handler):
    """Keeps what is logged as an error, except what begins with `but`."""

    def __init__(self, but: str) -> None:
        super().__init__(logging.ERROR)
        self._but = but
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._but and record.getMessage().startswith(self._but):
            return
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(f"logged as an error: {record.getMessage()}: {error!r}")


async def run_batch(mutants: Sequence[Mutant], bot: Any = say_back) -> Verdict:
    """Publish `mutants` to a fresh worker and wait until each is settled.

    `say_back` never fails; another bot may, on what it was not made for, and that is logged as an error.
    """
    verdict = Verdict()
    log = _ErrorLog("" if bot is say_back else "the bot failed on request")
    logging.getLogger().addHandler(log)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: verdict.faults.append(f"a task died: {context.get('exception')!r} {context['message']}")
    )
    try:
        await _Batch(mutants, verdict).run(bot)
    finally:
        logging.getLogger().removeHandler(log)
    verdict.faults += log.lines
    return verdict


class _Batch:
    """One batch on a broker and a store of its own."""

    def __init__(self, mutants: Sequence[Mutant], verdict: Verdict) -> None:
        self._verdict = verdict
        self._server = MemoryServer()
        # The token by which a dead letter is found: no mutation touches it.
        self._requests = {
            str(number): replace(mutant.request, properties=replace(mutant.request.properties, app_id=str(number)))
            for number, mutant in enumerate(mutants)
        }
        self._dead: dict[str | None, Delivery] = {}
        self._expired = 0

    async def run(self, bot: Any) -> None:
        broker, store = _Broker(self._server), MemoryStore(Retention(max_turns=MAX_TURNS))
        settings = KitSettings(namespace=TOPOLOGY.namespace, shards=TOPOLOGY.shards, attempts=1, max_turns=MAX_TURNS)
        worker = Worker(bot, settings, broker=broker, store=store)
        working = asyncio.create_task(worker.run())
        ready = asyncio.create_task(worker.wait_ready())
        await asyncio.wait({working, ready}, return_when=asyncio.FIRST_COMPLETED)
        publisher = MemoryBroker(self._server)
        await publisher.open()
        await publisher.consume(TOPOLOGY.dead, 1_000_000, self._take_dead)
        taken = await self._publish(publisher)
        await self._settled(worker, working, len(taken))
        worker.stop()
        (error,) = await asyncio.gather(working, return_exceptions=True)
        if isinstance(error, BaseException):
            self._verdict.faults.append(f"the worker ended: {error!r}")
        await publisher.close()
        for token in taken:
            self._judge(token, broker)
        await self._read_dialogs(store)

    def _take_dead(self, delivery: Delivery) -> None:
        self._dead[delivery.properties.app_id] = delivery
        self._expired += is_expired(delivery)

    async def _publish(self, publisher: MemoryBroker) -> list[str]:
        taken: list[str] = []
        for token, request in self._requests.items():
            try:
                await publisher.publish(request)
                taken.append(token)
            except (BrokerRefused, Unroutable):
                self._verdict.refused_by_broker += 1
        return taken

    async def _settled(self, worker: Worker, working: "asyncio.Task[None]", count: int) -> None:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                # The worker runs in this very loop, and tells nobody that it is done.
                while not working.done() and worker._interface.settled + self._expired < count:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        except TimeoutError:
            self._verdict.faults.append(f"{worker._interface.settled} of {count} settled in {SETTLE_SECONDS:g} s")
        self._verdict.settled += worker._interface.settled

    def _judge(self, token: str, broker: _Broker) -> None:
        request = self._requests[token]
        dead = self._dead.get(token)
        delivery = _delivery(request)
        try:
            expected, ctx_id = None, decode_request(delivery, TOPOLOGY).ctx_id
        except RequestRejected as rejected:
            expected, ctx_id = rejected.reason, None
        if dead is not None:
            self._judge_dead(request, dead, expected)
        elif expected is not None:
            self._fault(token, f"not refused as {expected}")
        else:
            body = broker.replies.get(reply_id(ctx_id, request.properties.message_id))
            if body is None:
                self._fault(token, "neither answered nor a dead letter")
            else:
                self._judge_reply(token, body)

    def _judge_reply(self, token: str, body: bytes) -> None:
        try:
            decode_reply(body)
        except ValueError as error:
            self._fault(token, f"its reply cannot be read: {error}")
        self._verdict.answered += 1

    def _judge_dead(self, request: Outgoing, dead: Delivery, expected: Reason | None) -> None:
        token = str(request.properties.app_id)
        headers = dict(dead.properties.headers or {})
        reason = str(headers.get("x-switchboard-reason"))
        if is_expired(dead):
            self._verdict.reasons["expired, by the broker"] += 1
            return
        self._verdict.reasons[reason] += 1
        if reason != expected and (expected is not None or reason not in BY_THE_BOT):
            self._fault(token, f"refused as {reason} instead of {expected}: {headers.get('x-switchboard-detail')}")
        if not str(headers.get("x-switchboard-detail")).isprintable():
            self._fault(token, "the detail is not printable")
        untouched = replace(dead.properties, headers=None, expiration=None, user_id=None)
        if dead.body != request.body or untouched != replace(
            request.properties, headers=None, expiration=None, user_id=None
        ):
            self._fault(token, "changed on its way to the dead letters")

    async def _read_dialogs(self, store: MemoryStore) -> None:
        async for ctx_id in store.context_ids():
            stored = await store.peek(ctx_id, history=MAX_TURNS)
            try:
                if stored is not None:
                    records.read_context(ctx_id, stored.version, stored.main, stored.turns)
            except RequestRejected as rejected:
                self._verdict.faults.append(f"a dialog cannot be read any more: {rejected}")

    def _fault(self, token: str, what: str) -> None:
        self._verdict.faults.append(f"request {token}: {what}")


def is_expired(dead: Delivery) -> bool:
    """Whether the broker has dead-lettered it; the worker gives a reason, and a publisher may send any `x-death`."""
    headers = dead.properties.headers or {}
    death = headers.get("x-death")
    return isinstance(death, list) and bool(death) and isinstance(death[0], dict) and "routing-keys" in death[0]


def _delivery(request: Outgoing) -> Delivery:
    broker: Any = None
    return Delivery(request.body, request.properties, request.exchange, request.routing_key, False, 0, 1, broker)
