"""The store seam: what a turn asks of the place where contexts live between polls.

Two implementations, `redis` and `memory`, pass the same tests (`tests/conformance`). A store holds bytes under a
context id and decides, in one atomic step each, whether a turn may start and whether it may commit. It never looks
into the bytes.

The **version** of a context is the number of turns committed to it, which is also the id of its last turn. Turn 0 may
hold what there is before the first request (Chatsky's start label). The **revision** counts edits, changes that were no
turn; a commit needs both as they were loaded.
The **epoch** is a number that grows with every change of who consumes a queue (`claim`). A worker that was paused for
longer than the window of kept replies would no longer find its old requests there; its epoch, lower than the one the
new owner left in the context, is what stops it (docs/decisions/0005).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


@dataclass(slots=True)  # Not frozen, as every turn makes one, and the next.
class Loaded:
    """A context as a turn sees it."""

    version: int
    """0 for a context that does not exist yet."""
    main: bytes | None
    """What the last commit stored beside the turns; `None` for a new context."""
    turns: Mapping[int, bytes]
    """The last `history` turns by id, those that exist."""
    reply: bytes | None
    """The reply already committed under this request's id: publish it, do not run the turn."""
    starts: int
    """How often the turn of this request was started and never finished, this time included."""
    revision: int = 0
    """How often the context was edited: changed by something that was no turn."""


@dataclass(slots=True)
class Turn:
    """Everything one commit stores, atomically."""

    ctx_id: str
    request_id: str
    version: int
    """Version that was loaded; the commit creates `version + 1`."""
    main: bytes
    turns: Mapping[int, bytes]
    """Turns written, by id: the new one, and older ones where the pipeline changed them."""
    reply: bytes
    """The finished reply body, published as it is."""
    revision: int = 0
    """Revision that was loaded."""
    returnable: int = 0
    """Turns before this one whose requests may be delivered again: their replies are kept, however small the window."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a context that is no turn: an import, or a script that writes a dialog. Fenced as a turn is."""

    ctx_id: str
    edit_id: str
    """The same for every repetition of this edit, and for no other."""
    version: int
    """Version that was read; 0 where the context is to be new."""
    revision: int
    """Revision that was read."""
    new_version: int
    """Not lower than `version`: kept replies are numbered by it."""
    main: bytes
    turns: Mapping[int, bytes]
    """Turns written, by id."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What a context remembers of its requests."""

    replies: Mapping[str, bytes] = field(default_factory=dict)
    """The replies kept, by request id, the oldest first."""
    started: str | None = None
    """The request whose turn was started last and not finished."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.replies) or self.started is not None


@dataclass(frozen=True, slots=True)
class Retention:
    """What a store keeps of each context."""

    outbox: int = 128
    """Replies kept per context, to answer redelivered requests; more while a commit asks for it."""
    max_turns: int | None = None
    """Turns kept per context; `None` keeps all."""
    ttl_seconds: int = 30 * 24 * 3600
    """A context without a turn for this long is forgotten."""


class Durability(StrEnum):
    """Where a commit must have arrived before it counts. What each can lose: docs/durability.md."""

    PRIMARY = "primary"
    """The primary has answered."""
    REPLICA = "replica"
    """Replicas have it in memory."""
    DISK = "disk"
    """The primary has it on its disk."""
    REPLICA_DISK = "replica-disk"
    """The primary and replicas have it on their disks."""


class ContextStore(Protocol):
    """Where contexts live. All methods but `close` raise `StoreUnavailable`; the same call may then be made again."""

    async def open(self) -> None:
        """Connect and check the server.

        Raises `StoreRefused` (version, credentials, a durability it cannot give) or `StoreUnavailable`.
        """

    async def close(self) -> None:
        """Close connections. Never raises, may be repeated."""

    async def claim(self) -> int:
        """A new epoch, higher than every one given before in this namespace."""

    async def load(
        self, ctx_id: str, request_id: str, *, epoch: int, attempt: str, history: int, counted: int = 1
    ) -> Loaded:
        """Load a context for a turn, note `epoch` in it, and count the start of this request's turn.

        A start beyond the `counted`th is told and not counted (docs/decisions/0014). `attempt` names this try:
        repeating a load with the same attempt counts nothing. Nothing is counted or noted where the request is already
        committed. Raises `TurnAbandoned` when the context has seen a higher epoch.
        """

    async def commit(self, turn: Turn) -> bytes:
        """Commit a turn; return the reply that is now stored under its request id.

        That is `turn.reply`, unless this request was committed before (a lost answer, another worker): then nothing
        changes and the earlier reply is returned. Raises `VersionConflict` when the context moved since it was loaded.
        """

    async def edit(self, edit: Edit) -> None:
        """Change a context outside of any turn; a turn that runs meanwhile gets a conflict, and loads what is new.

        Raises `VersionConflict` when the context moved or was edited since it was read.
        """

    async def forget_start(self, ctx_id: str, request_id: str, attempt: str | None = None) -> None:
        """Take back the start counted for `attempt`, which ended without a commit and without a crash, or all starts.

        Starts before it stay counted, so a suspect stays one.
        """

    async def peek(self, ctx_id: str, history: int) -> Loaded | None:
        """Read a context without any effect; `None` where it does not exist. For operators."""

    async def read_turns(self, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, bytes]:
        """Those of the turns that exist."""

    async def read_outbox(self, ctx_id: str) -> Outbox:
        """The requests of a context that are remembered, without any effect. For operators."""

    async def delete(self, ctx_id: str) -> bool:
        """Forget a context, its kept replies included; False where there was none."""

    def context_ids(self) -> AsyncIterator[str]:
        """Ids of all contexts, in no order; those that come or go meanwhile may be missing. For operators."""

    async def announce(self, worker: str, info: bytes, lives_for: float) -> dict[str, bytes]:
        """Say that `worker` lives for so many seconds by the store's clock; return what all that live said last."""

    async def living(self) -> dict[str, bytes]:
        """What all that live said last, without being one of them. For operators."""

    async def withdraw(self, worker: str) -> None:
        """Take a worker off that list, which is only ever a hint: who consumes is decided by the broker."""

    async def read_plan(self) -> tuple[bytes | None, frozenset[str]]:
        """The plan of the request queues, `None` where there is none, and the queues noted as passed under it."""

    async def change_plan(self, expected: bytes | None, new: bytes) -> bool:
        """Replace the plan where it is still `expected`, and forget what was noted under that; False where it is not.

        True as well where the plan is `new` already, so the same call may be made again after a lost answer.
        """

    async def note_passed(self, queue: str) -> None:
        """Note that a queue is passed, until the plan changes."""
