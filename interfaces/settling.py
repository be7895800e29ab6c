"""Settles requests: the one place where a request is acknowledged, always after its outcome is confirmed by the broker.

A process that dies between the confirm and the ack leaves the request to be delivered again, and the same reply or dead
letter to be published again. Nothing here decides what the outcome is.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never, wait_random_exponential

from interfaces.brokers import Broker, Delivery, Outgoing
from interfaces.current_turn import CURRENT
from interfaces.dead_letters import dead_letter, without_own_headers
from interfaces.envelope import DIRECT_REPLY, SERVER_NAMED, Request, may_reply_to
from interfaces.errors import (
    BrokerFailed,
    BrokerRefused,
    BrokerUnavailable,
    HeadersTooLarge,
    RequestRejected,
    Unroutable,
)
from interfaces.reply_bodies import DEFAULT_INTERFACE, encode_error_reply, interface_of, reply_outgoing
from interfaces.request_queues import RequestQueues
from interfaces.telemetry import Telemetry

logger = logging.getLogger(__name__)

OUTAGE_WAIT = wait_random_exponential(multiplier=0.05, max=5)
"""Seconds between attempts while the broker is away: soon at first, spread out when every worker waits."""


WHOLE_SECONDS = 10.0
"""For the last nodes of a cluster that was restarted to bring their queues."""


DIRECT_REPLY_FAILURES = 3
"""Times that RabbitMQ may fail over a direct reply before it is given up. It closes the connection over an address that
somebody made up (seen on 3.10), every time; and of all that is published just then, nobody can tell whose fault it is.
"""


class Settler:
    """Publishes outcomes of requests, for as long as it takes, and acknowledges them.

    :param worker: whom a dead letter names.
    :param is_whole: whether the broker has been whole for so many seconds, as far as can be seen from here.
    """

    def __init__(
        self,
        broker: Broker,
        queues: RequestQueues,
        worker: str,
        is_whole: Callable[[float], bool] = lambda _: True,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._metrics = self._telemetry.metrics
        stages = self._metrics.stage_seconds
        self._publish_seconds, self._settle_seconds = stages["publish"], stages["settle"]
        self._broker = broker
        self._is_whole = is_whole
        self._queues = queues
        self._topology = queues.topology  # Only names are read from it that are the same in every generation.
        self._worker = worker
        self._aside: set[asyncio.Task[None]] = set()
        self._has_told_unheard = False
        self.settled = 0
        """Requests acknowledged."""

    async def answer(self, request: Request, body: bytes, *, is_repeated: bool = False) -> None:
        """Publish the reply and acknowledge. `is_repeated`: the turn was committed before."""
        began = monotonic()
        interface = interface_of(request.message)
        await self._publish_reply(
            reply_outgoing(self._topology, request.delivery, request.ctx_id, body, interface), request.delivery
        )
        confirmed = monotonic()
        await request.delivery.channel.ack(request.delivery)
        self.settled += 1
        self._publish_seconds.observe(confirmed - began)
        self._settle_seconds.observe(monotonic() - confirmed)
        self._metrics.turns_total["repeated" if is_repeated else "ok"] += 1

    async def reject(self, delivery: Delivery, rejected: RequestRejected, request: Request | None = None) -> None:
        """Keep the request as a dead letter, tell its sender, and acknowledge. `request` is there where it decoded."""
        if request is None:
            CURRENT.set(delivery)
        logger.warning("request %r is a dead letter: %s", delivery.properties.message_id, rejected)
        await self._publish_dead_letter(dead_letter(self._topology, delivery, rejected, self._worker))
        self._metrics.dead_letters_total[rejected.reason] += 1
        await self._publish_error(delivery, rejected, request)
        await delivery.channel.ack(delivery)
        self.settled += 1
        self._metrics.turns_total["dead"] += 1
        if self._telemetry.tracing is not None and request is not None:
            self._telemetry.tracing.failed(rejected.reason.value)

    def reject_aside(self, delivery: Delivery, rejected: RequestRejected) -> "asyncio.Task[None]":
        """`reject` for a request that cannot be read, so is in no lane. Returns at once, with what ends then."""
        task = asyncio.create_task(self.reject(delivery, rejected), name="reject request")
        self._aside.add(task)
        task.add_done_callback(self._on_rejected)
        return task

    async def drain(self) -> None:
        """Wait until everything rejected aside is settled."""
        while self._aside:
            await asyncio.wait(self._aside)

    async def cancel(self) -> None:
        """Give up what is still being rejected aside; unacknowledged, it comes again."""
        for task in self._aside:
            task.cancel()
        await asyncio.gather(*self._aside, return_exceptions=True)

    def _on_rejected(self, task: asyncio.Task[None]) -> None:
        self._aside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request that cannot be read could not be settled; it stays unacknowledged", exc_info=error)

    async def _publish_error(self, delivery: Delivery, rejected: RequestRejected, request: Request | None) -> None:
        ctx_id = request.ctx_id if request else None
        reply_to = delivery.properties.reply_to
        if reply_to and not may_reply_to(reply_to, self._topology):
            return
        if reply_to or request:
            body = encode_error_reply(
                ctx_id, delivery.properties.message_id, rejected, request.opened if request else None
            )
            interface = interface_of(request.message) if request else DEFAULT_INTERFACE
            await self._publish_reply(reply_outgoing(self._topology, delivery, ctx_id, body, interface), delivery)

    async def _publish_reply(self, reply: Outgoing, delivery: Delivery) -> None:
        try:
            if self._telemetry.tracing is None:
                await self._until_heard(reply)
            else:
                await self._telemetry.tracing.replying(reply, self._until_heard)
        except Unroutable:
            # Whoever asked is gone, or nobody listens. The turn stands; the reply stays in the context's outbox.
            # Said aloud once: where nobody listens on purpose, it is true of every reply.
            logger.log(
                logging.DEBUG if self._has_told_unheard else logging.WARNING,
                "nobody takes the reply to request %r: no queue at %r (others like this only at log level debug)",
                delivery.properties.message_id,
                reply.exchange or reply.routing_key,
            )
            self._has_told_unheard = True
        except BrokerFailed as error:
            logger.warning("reply to request %r given up: %s", delivery.properties.message_id, error)

    async def _until_heard(self, reply: Outgoing) -> None:
        """Publish. Raises `Unroutable` where nobody listens, `BrokerFailed` where the broker fails over the address.

        The nodes of a RabbitMQ cluster that starts bring the bindings of the queues they led, each its own, and the
        first one is connected to before the last one is there: until then a queue that exists gets nothing. An
        exclusive queue has not survived that anyway.
        """
        while True:
            began = monotonic()
            try:
                try:
                    return await self._broker.publish(reply)  # Nearly always: `_patiently` costs a coroutine more.
                except (BrokerUnavailable, BrokerRefused) as error:
                    failures: list[Exception] = [error]
                return await self._patiently(reply, failures)
            except Unroutable:
                lasted = monotonic() - began
                if reply.routing_key.startswith(SERVER_NAMED) or self._is_whole(WHOLE_SECONDS + lasted):
                    raise
                await asyncio.sleep(WHOLE_SECONDS / 20)

    async def _publish_dead_letter(self, message: Outgoing) -> None:
        if not message.properties.message_id:
            # Without an id the client library cannot tell that a message was returned: look for the queue first.
            await self._ensure_dead_letter_queue()
        try:
            await self._patiently(message)
        except HeadersTooLarge:
            # With ours added they fit no frame. Kept whole, it could not be kept at all.
            await self._publish_dead_letter(without_own_headers(message))
        except Unroutable:
            await self._ensure_dead_letter_queue(declare=True)
            await self._patiently(message)

    async def _ensure_dead_letter_queue(self, *, declare: bool = False) -> None:
        async def ensure() -> None:
            if declare or await self._broker.queue_state(self._topology.dead) is None:
                await self._queues.mend(self._topology.dead)

        await self._retrying()(ensure)

    async def _patiently(self, message: Outgoing, failures: list[Exception] | None = None) -> None:
        """Publish, as often as it takes. `failures` has what the first attempt raised, where there was one."""

        async def again() -> None:
            if failures:
                raise failures.pop()
            await self._broker.publish(message)

        is_direct = message.exchange == "" and message.routing_key.startswith(DIRECT_REPLY)
        await self._retrying(_Failures(DIRECT_REPLY_FAILURES) if is_direct else stop_never)(again)

    def _retrying(self, stop: Callable[[RetryCallState], bool] = stop_never) -> AsyncRetrying:
        # Refused counts as away here: permissions and credentials are mended while the worker waits with the outcome.
        return AsyncRetrying(
            retry=retry_if_exception_type((BrokerUnavailable, BrokerRefused)),
            wait=OUTAGE_WAIT,
            stop=stop,
            before_sleep=_log_outage,
            reraise=True,
        )


class _Failures:
    """Stops retrying after so many failures of the broker; that it is away is none."""

    def __init__(self, allowed: int) -> None:
        self._left = allowed

    def __call__(self, state: RetryCallState) -> bool:
        if state.outcome is not None and isinstance(state.outcome.exception(), BrokerFailed):
            self._left -= 1
        return self._left <= 0


def _log_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("broker unavailable (attempt %d), trying again: %s", state.attempt_number, error)
