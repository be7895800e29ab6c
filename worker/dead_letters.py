"""Reads dead letters, and makes requests of them again. Pure values: `worker.dead_queue` moves them.

What a dead letter says of itself may have been written by anybody, so nothing here trusts or interprets it: every field
is checked for its type, text stays text, and a replayed request goes to the exchange for requests and nowhere else.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from pydantic_core import from_json

from interfaces.brokers import Delivery, Outgoing
from interfaces.dead_letters import HEADER_PREFIX
from interfaces.encryption import Keys
from interfaces.envelope import context_id
from interfaces.errors import MisuseError
from interfaces.sealed_bodies import reseal_request
from interfaces.topology import SLOTS, Topology, slot

LARGEST_PARSED: Final = 16 * 1024 * 1024
"""Bytes of body that are searched for a context id."""

SHORTEST_EXPIRATION: Final = 1000
"""Milliseconds. A request with less would be dead again before a worker that has something else to do comes to it."""
LONGEST_EXPIRATION: Final = 2**32 - 1
"""RabbitMQ closes the channel over a larger one."""

_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-acquired-count")
"""Headers in which RabbitMQ keeps account; by the first it would drop a request that dies once more as a cycle."""
_ROUTING: Final = frozenset({"CC", "BCC"})
"""Further routing keys, which RabbitMQ obeys: each of them has had its copy, and its own dead letter, already."""

_RUN_AGAIN: Final = UUID("1a1b7f6e-6b0c-4a5e-9a53-7c1d6c2f5f0e")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What one dead letter tells. `None` where it does not, or tells something that cannot be."""

    reason: str
    """A code of the contract, or the broker's word (`expired`, `delivery_limit`); `unknown` where there is none."""
    detail: str
    request_id: str | None
    ctx_id: str | None
    slot: int | None
    """Where a replay goes: the slot of the context, that of the original routing key where there is no context id."""
    failed_at: datetime | None
    worker: str | None
    """`None` as well where the broker itself gave it up."""
    attempts: int | None
    size: int
    """Bytes of the body."""
    digest: str
    """The same for the same dead letter only: of body, properties and routing key."""

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be replayed."""
        if not self.request_id:
            return "it has no message_id, so nothing could tell whether its replay arrived"
        return "neither a context id nor a slot can be read" if self.slot is None else None

    @property
    def identity(self) -> tuple[str | None, str]:
        """What makes it the same request: its id in its context, all of it where it has no id."""
        return (self.request_id, self.ctx_id or "") if self.request_id else (None, self.digest)

    def as_data(self) -> dict[str, Any]:
        """The same for scripts, all of it valid Unicode."""
        return {
            "request_id": None if self.request_id is None else shown(self.request_id),
            "ctx_id": self.ctx_id,
            "reason": shown(self.reason),
            "detail": shown(self.detail),
            "failed_at": None if self.failed_at is None else self.failed_at.isoformat(),
            "worker": None if self.worker is None else shown(self.worker),
            "attempts": self.attempts,
            "size": self.size,
        }


def shown(text: str) -> str:
    """`text` as valid Unicode: bytes that were none are escaped."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def read_dead_letter(message: Delivery | Outgoing) -> DeadLetter:
    """What a message from the dead-letter queue, or for it, tells. Never raises."""
    properties, ctx_id = message.properties, _context(message.body)
    headers = properties.headers or {}
    death = _death(message)
    key = _text(headers, "routing-key") if death is None else _first(death.get("routing-keys"))
    fields: dict[str, Any]
    if death is None:
        fields = {
            "reason": _text(headers, "reason") or "unknown",
            "detail": _text(headers, "detail") or "",
            "failed_at": _time(_text(headers, "failed-at")),
            "worker": _text(headers, "worker"),
            "attempts": _number(headers.get(f"{HEADER_PREFIX}attempts")),
        }
    else:
        at = death.get("time")
        fields = {
            "reason": str(death["reason"]),
            "detail": _account(death),
            "failed_at": at if isinstance(at, datetime) else None,
            "worker": None,
            "attempts": None,
        }
    return DeadLetter(
        request_id=properties.message_id or None,
        ctx_id=ctx_id,
        slot=slot(ctx_id) if ctx_id is not None else _slot(key),
        size=len(message.body),
        digest=_digest(message),
        **fields,
    )


def replayed(
    topology: Topology,
    delivery: Delivery,
    letter: DeadLetter,
    *,
    user: str | None = None,
    run_again: bool = False,
    keys: Keys | None = None,
) -> Outgoing:
    """The request that a dead letter was, ready to publish. Only for a letter without an `obstacle`.

    :param user: whom the broker knows the publisher as: a `user_id` that is another's would be refused.
    :param run_again: give it the id of `new_id`, so that its turn runs even where it was committed.
    :param keys: for an encrypted body, which is bound to its id, and must be encrypted anew for another one.

    Raises `DecryptionFailed` where that cannot be.
    """
    properties, death, body = delivery.properties, _death(delivery), delivery.body
    headers = properties.headers or {}
    kept = {key: value for key, value in headers.items() if not _is_added(key)}
    user_id = properties.user_id or _text(headers, "user-id")
    request = replace(
        properties,
        headers=kept or None,
        expiration=_expiration(properties.expiration or _text(headers, "expiration"), death),
        user_id=user_id if user_id == user else None,
    )
    if run_again and letter.request_id:
        # Whoever still waits for the reply knows it by the old id.
        correlation_id = properties.correlation_id or letter.request_id
        request = replace(request, message_id=new_id(letter.request_id), correlation_id=correlation_id)
        body = reseal_request(body, letter.request_id, new_id(letter.request_id), keys)
    return Outgoing(topology.requests_exchange, str(letter.slot), body, request)


def new_id(request_id: str) -> str:
    """The id of a request that is to run again: always the same for one old id, so a repeated replay is one turn."""
    return str(uuid5(_RUN_AGAIN, shown(request_id)))


def buried_again(topology: Topology, message: Outgoing) -> Outgoing:
    """A dead letter as it was, to publish into the dead-letter queue once more.

    As when it was made, what would delete it or have it refused travels as a header.
    """
    properties = message.properties
    headers = dict(properties.headers or {})
    if properties.expiration is not None:
        headers.setdefault(f"{HEADER_PREFIX}expiration", properties.expiration)
    if properties.user_id is not None:
        headers.setdefault(f"{HEADER_PREFIX}user-id", properties.user_id)
    kept = replace(properties, headers=headers or None, expiration=None, user_id=None)
    return Outgoing(topology.dead, message.routing_key, message.body, kept)


def _is_added(key: str) -> bool:
    return key in _ROUTING or key.startswith((HEADER_PREFIX, *_BROKERS_OWN))


def _context(body: bytes) -> str | None:
    if len(body) > LARGEST_PARSED:
        return None
    try:
        parsed = from_json(body)
        return context_id(parsed["ctx_id"]) if isinstance(parsed["ctx_id"], str) else None
    except (ValueError, LookupError, TypeError, MisuseError):
        return None


def _death(message: Delivery | Outgoing) -> Mapping[str, Any] | None:
    """The broker's account, where it was the broker that gave the request up.

    It keeps the routing key then, while a worker publishes without one: so neither a sender's header `x-death` nor one
    of ours that a sender made up can pass for the other.
    """
    deaths = (message.properties.headers or {}).get("x-death") if message.routing_key else None
    death = _first(deaths)
    return death if isinstance(death, Mapping) and isinstance(death.get("reason"), str) else None


def _account(death: Mapping[str, Any]) -> str:
    after = death.get("original-expiration")
    waited = f", after {after} ms" if isinstance(after, str) else ""
    return f"by the broker, in queue {death.get('queue')}{waited}"


def _expiration(given: str | None, death: Mapping[str, Any] | None) -> str | None:
    if death is not None:
        # One that died of it would do so again.
        original = death.get("original-expiration")
        given = original if isinstance(original, str) and death["reason"] != "expired" else None
    if given is None or not (given.isascii() and given.isdecimal() and len(given) <= len(str(LONGEST_EXPIRATION))):
        return None
    return given if SHORTEST_EXPIRATION <= int(given) <= LONGEST_EXPIRATION else None


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(HEADER_PREFIX + name)
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first(values: object) -> Any:
    return values[0] if isinstance(values, list) and values else None


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _slot(key: object) -> int | None:
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= len(str(SLOTS)):
        return int(key) if int(key) < SLOTS else None
    return None


def _digest(message: Delivery | Outgoing) -> str:
    # RabbitMQ gives headers back in another order once it has counted a delivery among them.
    properties = replace(message.properties, headers=_in_order(message.properties.headers))
    # `repr` escapes what is no Unicode, and tells apart whatever a header can hold.
    told = hashlib.sha256(repr((message.routing_key, properties)).encode())
    told.update(message.body)
    return told.hexdigest()


def _in_order(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value
