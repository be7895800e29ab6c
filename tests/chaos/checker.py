"""Judges a run: did every confirmed request change its context exactly once, in publish order, with one reply?

A pure function of the histories and of the contexts as they were found afterwards; it trusts nothing the product says
about itself. Each violation is explained by the one or two requests that show it. Called by `run` and the tests.

Order is decided by what a publisher knew: where it had a confirm for one request of a context before it sent another,
the first must come first. A request that was given up may therefore be applied late, once or never, but not early.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.chaos.history import Confirmed, Event, Replied, Sent


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "lost request"
    DOUBLED = "request applied twice"
    DISORDERED = "order broken"
    UNKNOWN_TURN = "turn of a request never sent"
    STATE = "state of the context wrong"
    NO_REPLY = "reply missing"
    DIVERGENT = "replies differ"
    WRONG_REPLY = "reply wrong"
    UNKNOWN_REPLY = "reply to a request never sent"


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A turn as it is stored."""

    number: int
    request_id: str


@dataclass(frozen=True, slots=True)
class FoundContext:
    """A context as it is stored, its turns in order."""

    version: int
    applied: int
    """Turns the bot itself has counted."""
    turns: Sequence[FoundTurn]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    kind: Kind
    ctx_id: str
    request_id: str
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.kind}: context {self.ctx_id!r}, request {self.request_id!r}\n"
            f"    expected: {self.expected}\n"
            f"    found:    {self.found}"
        )


@dataclass(slots=True)
class _Request:
    """Everything known of one request."""

    request_id: str
    ctx_id: str
    sent_at: int
    confirmed_at: int | None = None
    replies: list[Replied] = field(default_factory=list)


def check(events: Iterable[Event], contexts: Mapping[str, FoundContext]) -> list[Violation]:
    """All violations, by context. Raises `ValueError` where a history contradicts itself, which no server can cause."""
    requests, strays = _requests(events)
    by_context: dict[str, list[_Request]] = defaultdict(list)
    for request in requests.values():
        by_context[request.ctx_id].append(request)
    violations = [
        Violation(Kind.UNKNOWN_REPLY, "?", stray.request_id, "no reply", f"reply {stray.message_id!r}: {stray.body}")
        for stray in strays
    ]
    for ctx_id in sorted(by_context.keys() | contexts.keys()):
        found = contexts.get(ctx_id, FoundContext(0, 0, ()))
        sent = {request.request_id: request for request in by_context[ctx_id]}
        violations += _check_turns(ctx_id, sent, found)
        violations += _check_order(ctx_id, sent, found)
        violations += _check_state(ctx_id, found)
        turn_of = {turn.request_id: turn.number for turn in found.turns}
        for request in by_context[ctx_id]:
            violations += _check_replies(request, turn_of.get(request.request_id))
    return violations


def _requests(events: Iterable[Event]) -> tuple[dict[str, _Request], list[Replied]]:
    """The requests by id, and the replies that belong to none."""
    requests: dict[str, _Request] = {}
    strays: list[Replied] = []
    for event in sorted(events, key=lambda event: event.at):
        request = requests.get(event.request_id)
        match event:
            case Sent():
                if request is not None:
                    raise ValueError(f"request {event.request_id!r} was sent twice under one id")
                requests[event.request_id] = _Request(event.request_id, event.ctx_id, event.at)
            case Confirmed():
                if request is None:
                    raise ValueError(f"request {event.request_id!r} was confirmed and never sent")
                request.confirmed_at = event.at
            case Replied():
                (strays if request is None else request.replies).append(event)
    return requests, strays


def _check_turns(ctx_id: str, sent: Mapping[str, _Request], found: FoundContext) -> Iterator[Violation]:
    applied = Counter(turn.request_id for turn in found.turns)
    for request in sent.values():
        if request.confirmed_at is not None and request.request_id not in applied:
            yield Violation(Kind.LOST, ctx_id, request.request_id, "one turn", f"none among {len(found.turns)} turns")
    for request_id, times in applied.items():
        numbers = [turn.number for turn in found.turns if turn.request_id == request_id] if times > 1 else []
        if request_id not in sent:
            yield Violation(Kind.UNKNOWN_TURN, ctx_id, request_id, "no turn", f"{times} in this context")
        elif times > 1:
            yield Violation(Kind.DOUBLED, ctx_id, request_id, "one turn", f"turns {numbers}")


def _check_order(ctx_id: str, sent: Mapping[str, _Request], found: FoundContext) -> Iterator[Violation]:
    """Only the first turn of each request counts, and each misplaced request is told once."""
    last: tuple[_Request, int] | None = None
    seen: set[str] = set()
    for turn in found.turns:
        request = sent.get(turn.request_id)
        if request is None or turn.request_id in seen:
            continue
        seen.add(turn.request_id)
        if last is not None and request.confirmed_at is not None and request.confirmed_at < last[0].sent_at:
            later, number = last
            ahead = (later.sent_at - request.confirmed_at) / 1e9
            yield Violation(
                Kind.DISORDERED,
                ctx_id,
                request.request_id,
                f"before {later.request_id!r}, which was sent {ahead:.6f} s after this one was confirmed",
                f"turn {turn.number}, and {later.request_id!r} turn {number}",
            )
        if last is None or request.sent_at > last[0].sent_at:
            last = request, turn.number


def _check_state(ctx_id: str, found: FoundContext) -> Iterator[Violation]:
    count = len(found.turns)
    last = found.turns[-1].request_id if found.turns else ""
    numbers = [turn.number for turn in found.turns]
    if numbers != list(range(1, count + 1)):
        wrong = next(n for n, number in enumerate(numbers, start=1) if n != number)
        yield Violation(Kind.STATE, ctx_id, last, f"turns 1 to {count}", f"turn {numbers[wrong - 1]} in place {wrong}")
    if (found.version, found.applied) != (count, count):
        counted = f"version {found.version}, and {found.applied} counted by the bot"
        yield Violation(Kind.STATE, ctx_id, last, f"version {count}, and {count} counted by the bot", counted)


def _check_replies(request: _Request, turn: int | None) -> Iterator[Violation]:
    def violation(kind: Kind, expected: str, found: str) -> Violation:
        return Violation(kind, request.ctx_id, request.request_id, expected, found)

    if not request.replies:
        if request.confirmed_at is not None or turn is not None:
            yield violation(Kind.NO_REPLY, "at least one reply", "none" if turn is None else f"none, and turn {turn}")
        return
    first = request.replies[0]
    for reply in request.replies[1:]:
        if (reply.message_id, reply.body) != (first.message_id, first.body):
            expected = f"{len(request.replies)} times the same reply {first.message_id!r}: {first.body}"
            yield violation(Kind.DIVERGENT, expected, f"also {reply.message_id!r}: {reply.body}")
            break
    told = _told(first.body)
    expected_told = {"ctx_id": request.ctx_id, "request_id": request.request_id, "turn": turn, "status": "ok"}
    expected_told |= {"applied": turn}
    if told != expected_told:
        yield violation(Kind.WRONG_REPLY, json.dumps(expected_told), first.body if told is None else json.dumps(told))


def _told(body: str) -> dict[str, Any] | None:
    """What a reply of the suite's bot says about its turn; `None` where it is no reply at all."""
    try:
        reply = json.loads(body)
        told = {name: reply[name] for name in ("ctx_id", "request_id", "turn", "status")}
        return told | {"applied": (reply.get("misc") or {}).get("applied")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
