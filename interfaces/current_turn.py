"""Which request the running task is busy with: for lines of the log, whoever writes them, the bot and its threads too.

Set once by the task that a turn is, so it needs no resetting, and what the turn starts inherits it. Only what tells
reads it; nothing decides by it (docs/decisions/0001).
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from interfaces.brokers import Delivery
    from interfaces.envelope import Request

CURRENT: Final["ContextVar[Request | Delivery | None]"] = ContextVar("request", default=None)
"""A delivery where the request could not be read; `None` outside of turns."""
