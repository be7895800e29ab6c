"""Everything that is kept of one context: in the store, among the dead letters, in the attachment store.

For an operator who is asked for somebody's data, or to delete them. What is waiting in queues belongs to nobody's
storage yet: it is told and never touched. Called by `switchboard context`.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json

from interfaces.brokers import Broker, Delivery
from interfaces.encryption import Keys
from interfaces.errors import AttachmentReferenceInvalid, DecryptionFailed
from interfaces.references import Reference
from interfaces.sealed_bodies import open_reply, request_in_plain
from interfaces.topology import Topology, slot
from worker.dead_letters import DeadLetter, read_dead_letter
from worker.dead_lines import as_record
from worker.dead_queue import Walk
from worker.plan import Plan
from worker.stores import ContextStore, Loaded, Outbox

TURNS_AT_A_TIME: Final = 500

Record = dict[str, Any]
"""One thing that is kept; `kind` says what, `export_records` which kinds there are."""


@dataclass(slots=True)
class Held:
    """What there is of a context, turns and bodies left out."""

    ctx_id: str
    loaded: Loaded | None
    """`None` where no turn was ever committed, or nothing is left."""
    outbox: Outbox
    letters: list[tuple[DeadLetter, Delivery]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    """Requests that wait, of this context and others, by the queues that this one's come to."""
    attachments: set[Reference] = field(default_factory=set)
    """What turns, replies and dead letters refer to; known once all of them were read."""
    is_cut: bool = False
    """Whether there are dead letters that were not looked at."""

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return self.loaded is not None or bool(self.letters) or bool(self.outbox)


async def look(store: ContextStore, ctx_id: str) -> Held:
    """What the store keeps of a context."""
    return Held(ctx_id, await store.peek(ctx_id, history=0), await store.read_outbox(ctx_id))


async def find_letters(held: Held, walk: Walk) -> None:
    """Add the dead letters of the context. Those whose body tells no context id are nobody's."""
    async for delivery in walk:
        letter = read_dead_letter(delivery)
        if letter.ctx_id == held.ctx_id:
            held.letters.append((letter, delivery))
    held.is_cut = walk.is_cut


async def count_waiting(held: Held, broker: Broker, topology: Topology, plan: Plan | None) -> None:
    """Add what waits in the queues that requests of the context come to."""
    generations = [] if plan is None else [plan.current, *([plan.previous] if plan.previous is not None else [])]
    for generation in generations:
        queue = generation.of(topology).queue_of(slot(held.ctx_id))
        state = await broker.queue_state(queue)
        if state is not None:
            held.waiting[queue] = state.messages


async def export_records(store: ContextStore, held: Held, keys: Keys | None = None) -> AsyncIterator[Record]:
    """All that is kept: the context, its turns, replies and dead letters, then the attachments that were found in them.

    What cannot be read as JSON is there all the same, as base64; encrypted bodies are decrypted by `keys`.
    """
    async for record in _contents(store, held, keys):
        held.attachments |= references(record)
        yield record
    for letter, delivery in held.letters:
        content = _content(letter, delivery, keys)
        held.attachments |= references(content)
        yield {"kind": "dead letter", "letter": as_record(delivery, letter), "content": content}
    for reference in sorted(held.attachments, key=str):
        yield {"kind": "attachment", "reference": str(reference), "size": reference.size}
    for queue, messages in held.waiting.items():
        yield {"kind": "waiting", "queue": queue, "messages_of_all_contexts": messages}


async def _contents(store: ContextStore, held: Held, keys: Keys | None) -> AsyncIterator[Record]:
    loaded, outbox = held.loaded, held.outbox
    yield {
        "kind": "context",
        "ctx_id": held.ctx_id,
        "version": 0 if loaded is None else loaded.version,
        "revision": 0 if loaded is None else loaded.revision,
        "started": outbox.started,
        "content": None if loaded is None or loaded.main is None else _readable(loaded.main),
    }
    async for number, turn in read_all_turns(store, held):
        yield {"kind": "turn", "turn": number, "content": _readable(turn)}
    for request_id, reply in outbox.replies.items():
        yield {"kind": "reply", "request_id": request_id, "content": _reply(reply, keys)}


async def read_all_turns(store: ContextStore, held: Held) -> AsyncIterator[tuple[int, bytes]]:
    """Every turn that is kept, the oldest first, some at a time."""
    last = -1 if held.loaded is None else held.loaded.version
    for first in range(0, last + 1, TURNS_AT_A_TIME):
        turns = await store.read_turns(held.ctx_id, range(first, min(first + TURNS_AT_A_TIME, last + 1)))
        for number in sorted(turns):
            yield number, turns[number]


def references(value: Any) -> set[Reference]:
    """The references to stored bytes anywhere in parsed JSON, or in what holds some."""
    found: set[Reference] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, Sequence) and not isinstance(item, str | bytes):
            pending.extend(item)
        elif isinstance(item, str) and (reference := _reference(item)) is not None:
            found.add(reference)
    return found


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except AttachmentReferenceInvalid:
        return None


def _reply(reply: bytes, keys: Keys | None) -> Any:
    """A reply that went out encrypted is so below what its store encrypts."""
    try:
        return _readable((open_reply(reply, keys) if keys is not None else None) or reply)
    except DecryptionFailed as error:
        return {"$unreadable": str(error)}


def _content(letter: DeadLetter, delivery: Delivery, keys: Keys | None) -> Any:
    try:
        return _readable(request_in_plain(delivery.body, letter.request_id or "", keys))
    except DecryptionFailed as error:
        return {"$unreadable": str(error)}


def _readable(stored: bytes) -> Any:
    try:
        return from_json(stored)
    except ValueError:
        return {"$bytes": base64.b64encode(stored).decode()}
