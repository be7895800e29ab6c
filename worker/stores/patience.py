"""Waiting for the store: a call is repeated until the store answers, and none of that is anybody's fault.

Every store call may be repeated, which is what makes this safe. Called by turns and by whoever keeps the plan.
"""

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from interfaces.errors import StoreUnavailable
from interfaces.metrics import Histogram

logger = logging.getLogger(__name__)
T = TypeVar("T")

UNTIMED = Histogram(())
"""Where nobody wants to know."""

STORE_WAIT = wait_random_exponential(multiplier=0.05, max=5)


async def while_store_is_away(call: Callable[..., Awaitable[T]], *args: Any, seconds: Histogram = UNTIMED) -> T:
    """What `call(*args)` returns, as soon as the store answers. `seconds` counts how long that took."""
    began = monotonic()
    try:
        result = await call(*args)  # As nearly every time: without what it costs to set up the retries.
    except StoreUnavailable:
        result = await _again(call, *args)
    seconds.observe(monotonic() - began)
    return result


async def _again(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    retrying = AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=STORE_WAIT, before_sleep=_log_outage)
    return await retrying(call, *args)


def _log_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("store unavailable (attempt %d), trying again: %s", state.attempt_number, error)
