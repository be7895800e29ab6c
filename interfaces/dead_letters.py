"""Turns a request that cannot be processed into a dead letter: the same body and properties, plus why.

Two properties would harm the dead letter itself and travel as headers instead: `expiration` would delete it, and
RabbitMQ refuses a `user_id` that is not the publishing connection's own.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from interfaces.bot_signals import Reject
from interfaces.brokers import Delivery, Outgoing
from interfaces.errors import Reason, RequestRejected, described
from interfaces.topology import Topology

HEADER_PREFIX: Final = "x-switchboard-"
MAX_DETAIL: Final = 2000


def rejection(error: BaseException, attempts: int) -> RequestRejected:
    """What becomes of a request on which the bot ended with `error`, for good. Nothing of it is told to the sender but
    what a `Reject` is there to tell."""
    if isinstance(error, Reject):
        return RequestRejected(Reason.REJECTED, error.reason, attempts=attempts)
    return RequestRejected(Reason.HANDLER_FAILED, "the bot failed", internal=described(error), attempts=attempts)


def without_own_headers(message: Outgoing) -> Outgoing:
    """A dead letter whose request's own headers are given up for ours, because they do not fit the frame together."""
    headers = message.properties.headers or {}
    ours = {key: value for key, value in headers.items() if key.startswith(HEADER_PREFIX)}
    ours["x-switchboard-headers-dropped"] = len(headers) - len(ours)
    return replace(message, properties=replace(message.properties, headers=ours))


def dead_letter(topology: Topology, delivery: Delivery, rejected: RequestRejected, worker: str) -> Outgoing:
    """The dead letter for a rejected delivery, ready to publish; `worker` names the process that gave it up."""
    properties = delivery.properties
    # A header of ours that came from outside would lie about the reason.
    headers: dict[str, Any] = {
        key: value for key, value in (properties.headers or {}).items() if not key.startswith(HEADER_PREFIX)
    }
    headers |= {
        "x-switchboard-reason": rejected.reason.value,
        "x-switchboard-detail": (rejected.internal or rejected.detail)[:MAX_DETAIL],
        "x-switchboard-attempts": rejected.attempts,
        "x-switchboard-worker": worker,
        "x-switchboard-failed-at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "x-switchboard-exchange": delivery.exchange,
        "x-switchboard-routing-key": delivery.routing_key,
    }
    if properties.expiration is not None:
        headers["x-switchboard-expiration"] = properties.expiration
    if properties.user_id is not None:
        headers["x-switchboard-user-id"] = properties.user_id
    kept = replace(properties, headers=headers, expiration=None, user_id=None)
    return Outgoing(topology.dead, "", delivery.body, kept)
