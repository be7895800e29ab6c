"""When a turn that failed runs again: by what the bot raised, how often it failed, and for how long it has been tried.

The turn waits in its lane, so the order of its context holds; others go on. Used by `worker.turns`.
"""

import logging
import time
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_base

from interfaces import dead_letters
from interfaces.bot_signals import Reject, Retry
from interfaces.errors import Reason, RequestRejected, described
from worker.bot_runs import TurnOverdue
from worker.settings import Settings

logger = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 30.0
"""Seconds, where the bot names none itself."""


class BotFailed(Exception):
    """The bot failed; its error is the cause. Only this, and `Retry`, makes a turn run again."""


class _Enough(stop_base):
    """The attempts are used up, or the next one would begin later than `retry_for` seconds after the first failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failures = 0
        self._first_failure: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        now = time.monotonic()
        if self._first_failure is None:
            self._first_failure = now
        if not isinstance(_error(state), Retry):
            self._failures += 1
        begins = now + state.upcoming_sleep - self._first_failure
        return self._failures >= self._settings.attempts or begins > self._settings.retry_for


def retrying(settings: Settings) -> AsyncRetrying:
    """The attempts at one turn. Raises what the last one raised: `BotFailed` or `Retry` where there were enough."""
    backoff = wait_random_exponential(multiplier=settings.retry_wait, max=LONGEST_PAUSE)

    def pause(state: RetryCallState) -> float:
        error = _error(state)
        return error.after if isinstance(error, Retry) and error.after is not None else backoff(state)

    return AsyncRetrying(
        stop=_Enough(settings),
        wait=pause,
        retry=retry_if_exception_type((BotFailed, Retry)),
        before_sleep=_log_failure,
        reraise=True,
    )


def rejection(error: BotFailed | Retry | Reject, attempts: int) -> RequestRejected:
    """What becomes of a request that is not to be run again."""
    cause = error.__cause__ or error
    if isinstance(cause, TurnOverdue):
        return RequestRejected(Reason.TURN_TIMEOUT, "the bot took too long", internal=str(cause), attempts=attempts)
    return dead_letters.rejection(cause if isinstance(error, BotFailed) else error, attempts)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _log_failure(state: RetryCallState) -> None:
    error = _error(state)
    cause = error.__cause__ if isinstance(error, BotFailed) else error
    logger.warning(
        "the bot failed (attempt %d), running the turn again in %.1f s: %s",
        state.attempt_number,
        state.upcoming_sleep,
        described(cause) if cause else "",
    )
