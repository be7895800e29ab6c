"""The work that every contender does, and what its replies must be.

Per request: load the context, add the turn, count up, save, publish the reply with a confirm, acknowledge. A request's
text is its number within its context; the answer is that number and how many turns the context has had, so the replies
alone tell whether an update was lost or an order broken.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

WINDOW = 10
"""Turns that a contender loads with a context, as Switchboard does."""


@dataclass(frozen=True, slots=True)
class Work:
    """Requests to be answered."""

    requests: int = 10_000
    contexts: int = 1_000
    in_a_row: int = 1
    """Requests of a context that follow one another immediately."""
    wait: float = 0.0
    """Seconds that a handler waits."""
    payload: int = 0
    """Bytes of text besides the number."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Context id and text of every request, in the order to publish."""
        per_context = self.requests // self.contexts
        padding = " " + "x" * self.payload if self.payload else ""
        for first in range(0, per_context, self.in_a_row):
            for context in range(self.contexts):
                for number in range(first, min(first + self.in_a_row, per_context)):
                    yield f"user-{context}", f"{number}{padding}"


def answer_to(text: str, count: int) -> str:
    """What the handler answers: the request's number, and the turns of its context by now."""
    return f"{text.partition(' ')[0]} {count}"


def body_of(ctx_id: str, text: str) -> bytes:
    """A request as Switchboard's wire contract has it; all contenders that can get it as it is."""
    return json.dumps({"version": 1, "ctx_id": ctx_id, "message": {"text": text}}).encode()


def reply_body(ctx_id: str, text: str) -> bytes:
    """A reply with what the checks need, from contenders that build their own."""
    return json.dumps({"version": 1, "ctx_id": ctx_id, "status": "ok", "message": {"text": text}}).encode()


def with_turn(context: dict[str, Any], text: str) -> str:
    """Add a turn to a context kept as one JSON value, of which the last turns are all there is; the answer to it."""
    context["count"] = context.get("count", 0) + 1
    answer = answer_to(text, context["count"])
    context["turns"] = [*context.get("turns", ())[1 - WINDOW :], {"request": text, "response": answer}]
    return answer


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the replies to some work."""

    lost_updates: int
    out_of_order: int
    missing: int
    repeated: int


def faults(work: Work, replies: Iterable[bytes]) -> Faults:
    """Judge the replies, in the order in which they were published."""
    numbers: dict[str, list[int]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for reply in replies:
        decoded = json.loads(reply)
        number, count = map(int, decoded["message"]["text"].split())
        numbers[decoded["ctx_id"]].append(number)
        counts[decoded["ctx_id"]] = max(counts[decoded["ctx_id"]], count)
    distinct = sum(len(set(of_context)) for of_context in numbers.values())
    total = sum(map(len, numbers.values()))
    first = {ctx_id: list(dict.fromkeys(of_context)) for ctx_id, of_context in numbers.items()}
    unordered = sum(later < earlier for seen in first.values() for earlier, later in itertools.pairwise(seen))
    return Faults(distinct - sum(counts.values()), unordered, work.requests - distinct, total - distinct)
