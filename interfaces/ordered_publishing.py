"""Publishes requests so that those of one context reach the broker in the order they were handed in, retries included.

A context's next request waits until the one before is confirmed or given up. Other contexts do not wait.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, retry_if_exception_type

from interfaces.brokers import Broker, Outgoing
from interfaces.errors import BrokerUnavailable
from interfaces.settling import OUTAGE_WAIT
from interfaces.turnstiles import Turnstiles


class OrderedPublisher:
    """Publishes with confirms through `broker`, one request per context at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turnstiles = Turnstiles()

    async def publish(
        self, request: Outgoing, ctx_id: str, seconds: float, *, first: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Publish, again and again with the same id until confirmed; what must be there `first` is made in its turn.

        Raises `BrokerUnavailable` after `seconds`, with what stood in the way; whether the request arrived is then
        unknown. Raises `Unroutable` at once.
        """
        last: BrokerUnavailable | None = None

        async def attempt() -> None:
            nonlocal last
            try:
                if first is not None:
                    await first()
                await self._broker.publish(request)
            except BrokerUnavailable as error:
                last = error
                raise

        retrying = AsyncRetrying(retry=retry_if_exception_type(BrokerUnavailable), wait=OUTAGE_WAIT)
        try:
            async with asyncio.timeout(seconds), self._turnstiles.turn(ctx_id):
                await retrying(attempt)
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"request {request.properties.message_id!r} of context {ctx_id!r} was not confirmed within "
                f"{round(seconds, 2):g} s: {last or 'no confirm yet, for it or for an earlier request of this context'}"
            ) from error
