"""Contexts in this process: the store behind `memory://`, with the same semantics as Redis and nothing kept.

No method awaits anything, so each is as atomic as a script. Contexts lie in the order they were last touched, which
with one TTL for all is the order they expire in: each call drops the expired ones from the front. Used by the embedded
worker and by tests.
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from interfaces.errors import TurnAbandoned, VersionConflict
from worker.stores import Edit, Loaded, Outbox, Retention, Turn


@dataclass(slots=True)
class _Start:
    """The request whose turn was started last and not finished."""

    request_id: str
    attempt: str | None
    count: int


@dataclass(slots=True)
class _Context:
    expires_at: float
    epoch: int
    version: int = 0
    main: bytes | None = None
    turns: dict[int, bytes] = field(default_factory=dict)
    outbox: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    start: _Start | None = None
    revision: int = 0
    last_edit: str | None = None

    def last_turns(self, history: int) -> Mapping[int, bytes]:
        ids = range(max(0, self.version - history + 1), self.version + 1)
        return {n: self.turns[n] for n in ids if n in self.turns}


class MemoryStore:
    """A `ContextStore` in memory. `clock` gives seconds that never go back."""

    def __init__(self, retention: Retention, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retention = retention
        self._clock = clock
        self._contexts: OrderedDict[str, _Context] = OrderedDict()
        self._epochs = itertools.count(1)
        self._workers: dict[str, tuple[float, bytes]] = {}
        self._plan: bytes | None = None
        self._passed: set[str] = set()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to close; the contexts stay until the store itself goes."""

    async def claim(self) -> int:
        """A new epoch, one more than the last."""
        return next(self._epochs)

    async def load(
        self, ctx_id: str, request_id: str, *, epoch: int, attempt: str, history: int, counted: int = 1
    ) -> Loaded:
        """See `ContextStore.load`."""
        context = self._find(ctx_id)
        if context is None:
            context = _Context(self._expiry(), epoch)
        if context.epoch > epoch:
            raise TurnAbandoned(f"the context was taken over: it has seen epoch {context.epoch}, this one is {epoch}")
        reply = context.outbox.get(request_id)
        starts = 0
        if reply is None:
            starts = _count_start(context, request_id, attempt, counted)
            context.epoch = epoch
            self._touch(ctx_id, context)
        return Loaded(context.version, context.main, context.last_turns(history), reply, starts, context.revision)

    async def commit(self, turn: Turn) -> bytes:
        """See `ContextStore.commit`."""
        context = self._find(turn.ctx_id) or _Context(self._expiry(), epoch=0)
        if (earlier := context.outbox.get(turn.request_id)) is not None:
            return earlier
        _require_unmoved(turn, context)
        context.version += 1
        context.main = turn.main
        self._keep_turns(context, turn.turns)
        context.outbox[turn.request_id] = turn.reply
        while len(context.outbox) > max(self._retention.outbox, turn.returnable + 1):
            context.outbox.popitem(last=False)
        if context.start is not None and context.start.request_id == turn.request_id:
            context.start = None
        self._touch(turn.ctx_id, context)
        return turn.reply

    async def edit(self, edit: Edit) -> None:
        """See `ContextStore.edit`."""
        context = self._find(edit.ctx_id) or _Context(self._expiry(), epoch=0)
        if context.last_edit == edit.edit_id:
            return
        _require_unmoved(edit, context)
        if edit.new_version < context.version:
            raise VersionConflict(f"version {context.version} cannot become {edit.new_version}")
        context.version, context.main = edit.new_version, edit.main
        context.revision += 1
        context.last_edit = edit.edit_id
        self._keep_turns(context, edit.turns)
        self._touch(edit.ctx_id, context)

    async def forget_start(self, ctx_id: str, request_id: str, attempt: str | None = None) -> None:
        """See `ContextStore.forget_start`."""
        context = self._find(ctx_id)
        start = context.start if context is not None else None
        if context is None or start is None or start.request_id != request_id or attempt not in (None, start.attempt):
            return
        if attempt is None or start.count == 1:
            context.start = None
        else:
            start.attempt, start.count = None, start.count - 1

    async def peek(self, ctx_id: str, history: int) -> Loaded | None:
        """See `ContextStore.peek`."""
        context = self._find(ctx_id)
        if context is None or context.main is None:
            return None
        starts = context.start.count if context.start is not None else 0
        return Loaded(context.version, context.main, context.last_turns(history), None, starts, context.revision)

    async def read_turns(self, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, bytes]:
        """See `ContextStore.read_turns`."""
        context = self._find(ctx_id)
        return {} if context is None else {n: context.turns[n] for n in turn_ids if n in context.turns}

    async def read_outbox(self, ctx_id: str) -> Outbox:
        """See `ContextStore.read_outbox`."""
        context = self._find(ctx_id)
        if context is None:
            return Outbox()
        return Outbox(dict(context.outbox), None if context.start is None else context.start.request_id)

    async def delete(self, ctx_id: str) -> bool:
        """See `ContextStore.delete`."""
        context = self._find(ctx_id)
        self._contexts.pop(ctx_id, None)
        return context is not None and context.main is not None

    async def context_ids(self) -> AsyncIterator[str]:
        """See `ContextStore.context_ids`."""
        self._find("")  # drops those that have expired
        for ctx_id in list(self._contexts):
            yield ctx_id

    async def announce(self, worker: str, info: bytes, lives_for: float) -> dict[str, bytes]:
        """See `ContextStore.announce`."""
        self._workers[worker] = (self._clock() + lives_for, info)
        return await self.living()

    async def living(self) -> dict[str, bytes]:
        """See `ContextStore.living`."""
        now = self._clock()
        self._workers = {name: said for name, said in self._workers.items() if said[0] > now}
        return {name: info for name, (_, info) in self._workers.items()}

    async def withdraw(self, worker: str) -> None:
        """See `ContextStore.withdraw`."""
        self._workers.pop(worker, None)

    async def read_plan(self) -> tuple[bytes | None, frozenset[str]]:
        """See `ContextStore.read_plan`."""
        return self._plan, frozenset(self._passed)

    async def change_plan(self, expected: bytes | None, new: bytes) -> bool:
        """See `ContextStore.change_plan`."""
        if self._plan == expected and new != expected:
            self._plan = new
            self._passed.clear()
        return self._plan == new

    async def note_passed(self, queue: str) -> None:
        """See `ContextStore.note_passed`."""
        self._passed.add(queue)

    def _find(self, ctx_id: str) -> _Context | None:
        now = self._clock()
        while self._contexts and next(iter(self._contexts.values())).expires_at <= now:
            self._contexts.popitem(last=False)
        return self._contexts.get(ctx_id)

    def _touch(self, ctx_id: str, context: _Context) -> None:
        context.expires_at = self._expiry()
        self._contexts[ctx_id] = context
        self._contexts.move_to_end(ctx_id)

    def _expiry(self) -> float:
        return self._clock() + self._retention.ttl_seconds

    def _keep_turns(self, context: _Context, turns: Mapping[int, bytes]) -> None:
        kept = self._retention.max_turns
        oldest = 0 if kept is None else context.version - kept + 1
        # A change to a turn that was dropped would otherwise stay for ever.
        context.turns.update({n: turn for n, turn in turns.items() if n >= oldest})
        context.turns.pop(oldest - 1, None)


def _require_unmoved(read: Turn | Edit, context: _Context) -> None:
    if (read.version, read.revision) != (context.version, context.revision):
        raise VersionConflict(
            f"loaded at version {read.version} (revision {read.revision}), "
            f"now at {context.version} ({context.revision})"
        )


def _count_start(context: _Context, request_id: str, attempt: str, counted: int) -> int:
    start = context.start
    before = start.count if start is not None and start.request_id == request_id else 0
    is_repeated = before > 0 and start is not None and start.attempt == attempt
    starts = before if is_repeated else before + 1
    if starts <= counted:
        context.start = _Start(request_id, attempt, starts)
    return starts
