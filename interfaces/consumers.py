"""Keeps a consumer on a queue for as long as it is wanted, whatever happens to connections, queues and brokers.

The client library's own word is not enough: it can be connected while the broker knows no consumer (a cancelled
consumer, a lost answer). So the broker is asked, and after a bound during which it answers "no consumer" whatever is
tried, `ConsumerLost` ends the process, and `BrokerRefused` where it refuses for as long. A broker that does not answer
at all is an outage: that is waited out. A queue that is on a lost node of a cluster, and only there, is given up with
`QueueStranded`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_not_exception_type,
    wait_random_exponential,
)

from interfaces.brokers import Broker, Channel, Delivery
from interfaces.errors import BrokerRefused, BrokerUnavailable, ConsumerLost, QueueStranded

logger = logging.getLogger(__name__)
T = TypeVar("T")

REDECLARE_SECONDS = 1.0
"""Before a queue that was deleted is declared again: on RabbitMQ 3.10 the process that dead-letters for a quorum queue
was seen to crash, with its supervisor, when a queue of the same name appeared while it was still ending."""

RESTART_SECONDS = 2.0
"""No broker restarts faster. One that is back sooner has lost a connection, or one node of several."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How the broker is asked whether it still knows the consumer. Seconds."""

    every: float = 5.0
    lost_after: float = 60.0
    """How long it may know none, or refuse, although it answers."""


class _Stranded(QueueStranded):
    """Not to be waited for."""


class _RefusedForGood(BrokerRefused):
    """Waited for in vain."""


class KeptConsumer:
    """One queue's consumer. `declare` makes the queue where it is missing.

    A queue that is not replicated is given up with `QueueStranded` while its node is down: whose it is takes another.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        prefetch: int,
        deliver: Callable[[Delivery], None],
        *,
        declare: Callable[[], Awaitable[None]],
        watch: Watch | None = None,
        is_replicated: bool = True,
    ) -> None:
        self.queue = queue
        self._is_replicated = is_replicated
        self._broker = broker
        self._prefetch = prefetch
        self._deliver = deliver
        self._declare = declare
        self._watch = watch or Watch()
        self._missing_since: float | None = None
        self._refused_since: float | None = None
        self._channel: Channel | None = None
        self._delivered_on: Channel | None = None
        self._reopened_at = float("-inf")
        self._consuming = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is a consumer now, by the library's word."""
        return self._channel is not None and self._channel.is_open

    @property
    def unsettled(self) -> list[float]:
        """Event loop time of each delivery that is not acknowledged, the oldest first."""
        return list(self._channel.unsettled.values()) if self._channel is not None and self.is_open else []

    def is_settled(self, seconds: float) -> bool:
        """Whether the consumer is there, and for so long where it was lost before for as long as a restart takes."""
        return self.is_open and asyncio.get_running_loop().time() - self._reopened_at >= seconds

    @property
    def is_delivering(self) -> bool:
        """Whether this has been the queue's active consumer since it was opened last: something was delivered to it."""
        return self.is_open and self._delivered_on is self._channel

    async def wait_consuming(self) -> None:
        """Return once the queue has been consumed for the first time."""
        await self._consuming.wait()

    async def run(self) -> None:
        """Consume until cancelled, then close the channel.

        Raises `ConsumerLost`, `QueueStranded`, or `BrokerRefused` where the broker has refused for as long as may be.
        """
        try:
            self._channel = await self._consume()
            self._consuming.set()
            while True:
                logger.debug("consuming %s", self.queue)
                await self._stay(self._channel)
                logger.warning("consumer of %s closed, consuming again", self.queue)
                lost_at = asyncio.get_running_loop().time()
                self._channel = await self._consume()
                reopened_at = asyncio.get_running_loop().time()
                if reopened_at - lost_at > RESTART_SECONDS:
                    self._reopened_at = reopened_at
        finally:
            if self._channel is not None:
                await self._channel.close()

    async def _consume(self) -> Channel:
        # `BrokerRefused` is retried too: the start-up checks have passed once, so this is a broker that is coming up
        # or credentials on their way (docs/decisions/0020).
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((BrokerUnavailable, BrokerRefused))
            & retry_if_not_exception_type((_Stranded, _RefusedForGood)),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            before_sleep=self._log_attempt,
        )
        return await retrying(self._unless_refused_for_good, self._try_to_consume)

    async def _unless_refused_for_good(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns or raises; once it has been refused for the bound, and nothing else, `_RefusedForGood`.

        Such a process cannot mend itself: the credentials it has are those it was started with.
        """
        try:
            result = await call()
        except BrokerRefused as error:
            now = asyncio.get_running_loop().time()
            if self._refused_since is None:
                self._refused_since = now
            elif now - self._refused_since > self._watch.lost_after:
                raise _RefusedForGood(f"refused for {now - self._refused_since:.0f} s: {error}") from error
            raise
        except BrokerUnavailable:
            self._refused_since = None
            raise
        self._refused_since = None
        return result

    async def _try_to_consume(self) -> Channel:
        try:
            return await self._broker.consume(self.queue, self._prefetch, self._on_delivery)
        except QueueStranded as error:
            # A replicated queue says so too while its cluster starts, and is back when the others are.
            if self._is_replicated:
                raise
            raise _Stranded(str(error)) from error
        except BrokerUnavailable:
            if await self._broker.queue_state(self.queue) is None:
                self._note_missing()
                logger.warning("queue %s is missing, declaring it again", self.queue)
                await asyncio.sleep(REDECLARE_SECONDS)
                await self._declare()
            raise

    def _on_delivery(self, delivery: Delivery) -> None:
        self._delivered_on = delivery.channel
        self._deliver(delivery)

    async def _stay(self, channel: Channel) -> None:
        """Return when `channel` is closed, or was closed here because the broker twice knew no consumer."""
        unseen = 0
        while channel.is_open and unseen < 2:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._watch.every):
                    await channel.wait_closed()
                    return
            unseen = 0 if await self._is_seen() else unseen + 1
        await channel.close()

    async def _is_seen(self) -> bool:
        """Whether the broker knows a consumer of the queue. Unknown counts as seen: an outage is waited out."""
        try:
            state = await self._unless_refused_for_good(partial(self._broker.queue_state, self.queue))
        except _RefusedForGood:
            raise
        except (BrokerUnavailable, BrokerRefused):
            self._missing_since = None
            return True
        if state is not None and state.consumers > 0:
            self._missing_since = None
            return True
        self._note_missing()
        return False

    def _note_missing(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since > self._watch.lost_after:
            raise ConsumerLost(
                f"the broker has shown no consumer on {self.queue!r} for {now - self._missing_since:.0f} s, "
                "although this process is connected and consumed it again"
            )

    def _log_attempt(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("cannot consume %s (attempt %d): %s", self.queue, state.attempt_number, error)
