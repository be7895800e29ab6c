"""What a process has in hand of contexts: as it loaded or committed them last, so that it need not read it again.

A load tells the store what is in hand, and the store answers without it where that is still what it has: the same
version, the same revision, and this epoch noted, which nobody but this process writes and which goes with the context
(docs/decisions/0028). So an entry is never believed by itself. What is in hand of an encrypted context is encrypted.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from worker.stores import Loaded, Turn
from worker.stores.packed_turns import PackedTurns, moved

CACHE_BYTES: Final = 64 * 1024 * 1024
"""Some 18,000 dialogs of ten turns of 300 bytes."""

BESIDE: Final = 600
"""Bytes of memory that an entry takes beside what is in it, about."""


@dataclass(slots=True)  # Not frozen, as every turn makes one.
class Known:
    """A context as a load under `epoch` that asks for `history` turns finds it."""

    key: bytes
    """Where it is in Redis."""
    epoch: int
    history: int
    version: int
    revision: int
    main: bytes | None
    count: int
    """Turns packed, the missing ones included."""
    packed: bytes
    """As `PackedTurns` has them. Kept packed: what a bot unpacks is its turn's alone, and goes with it."""
    size: int
    """Bytes of memory, about."""

    @classmethod
    def loaded(
        cls, key: bytes, epoch: int, history: int, version: int, revision: int, main: bytes | None, packed: bytes
    ) -> "Known":
        """As it was read."""
        size = BESIDE + len(main or b"") + len(packed)
        return cls(key, epoch, history, version, revision, main, min(history, version + 1), packed, size)

    def after(self, turn: Turn, max_turns: int | None) -> "Known | None":
        """As it is found when `turn` is committed; `None` where that cannot be told without reading it."""
        version, history, new = turn.version + 1, self.history, turn.turns
        if turn.version != self.version or turn.revision != self.revision:
            return None
        if len(new) != 1 or version not in new:
            return None  # Whether the store takes an older turn depends on what it has dropped.
        window = history if max_turns is None or max_turns > history else max_turns
        count, packed = moved(self.count, self.packed, new[version], window)
        size = BESIDE + len(turn.main) + len(packed)
        return Known(self.key, self.epoch, history, version, self.revision, turn.main, count, packed, size)

    def as_loaded(self, reply: bytes | None, starts: int) -> Loaded:
        """What a turn sees of it."""
        turns = PackedTurns(self.version, self.count, self.packed)
        return Loaded(self.version, self.main, turns, reply, starts, self.revision)


class ContextCache:
    """Contexts in hand, of `limit` bytes at most; those used longest ago go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._size = 0

    def take(self, ctx_id: str) -> Known | None:
        """What is in hand of a context, which is then no longer kept here.

        So whatever becomes of the call it is taken for, nothing is kept that its answer has not confirmed.
        """
        known = self._known.pop(ctx_id, None)
        if known is not None:
            self._size -= known.size
        return known

    def keep(self, ctx_id: str, known: Known) -> None:
        """Have it for the next turn."""
        if ctx_id in self._known:
            self.take(ctx_id)
        self._known[ctx_id] = known
        self._size += known.size
        while self._size > self._limit:
            _, dropped = self._known.popitem(last=False)
            self._size -= dropped.size
