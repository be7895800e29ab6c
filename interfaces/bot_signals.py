"""What a bot raises to say what is to become of its turn. Used by bots, and by whoever runs them."""

from interfaces.errors import MisuseError


class BotSignal(BaseException):
    """What a bot raises to say what is to become of its turn. No `Exception`, as `asyncio.CancelledError` is none: a
    bot's, or a framework's, own `except Exception` must not take it for a failure."""


class Retry(BotSignal):
    """Run this turn again, after `after` seconds where given; `reason` is for the log.

    Such runs count against the time that a turn may take, and not against its attempts.
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        super().__init__(reason or "the bot asks for another attempt")
        if after is not None and not 0 <= after < float("inf"):
            raise MisuseError(f"Retry(after={after!r}): it must be a number of seconds, 0 or more")
        self.after = after
        self.reason = reason


class Reject(BotSignal):
    """Give this request up: it becomes a dead letter at once, and its sender is told `reason`, so no secrets in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = str(reason)[:MAX_REJECT_REASON]


MAX_REJECT_REASON = 1000
"""Characters of a bot's reason that reach the sender."""
