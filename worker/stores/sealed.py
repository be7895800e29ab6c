"""A store whose contents are encrypted on their way in: turns, main records and replies, each bound to its place.

It stands before any other store, which goes on holding bytes that it never looks into. A turn is bound to its context
and number, the main record to its context and the version it was written for, a reply to its context and request; ids
stay as they are, for they are what is looked up. Made where the settings have keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from interfaces.encryption import Keys, require_plain
from interfaces.errors import DecryptionFailed, Reason, RequestRejected
from worker.stores import ContextStore, Edit, Loaded, Outbox, Turn

SEALED: Final = 1
"""First byte of what is sealed: then the length of the key's id, the id, the ciphertext. No JSON begins so."""


class SealedStore:
    """A `ContextStore` on another one. Reading raises `RequestRejected(context-invalid)` for what cannot be opened."""

    def __init__(self, store: ContextStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def __getattr__(self, name: str) -> Any:
        # Workers, plans, epochs, starts: none of it is anything that was said.
        return getattr(self._store, name)

    async def load(self, ctx_id: str, request_id: str, **how: Any) -> Loaded:
        """See `ContextStore.load`."""
        loaded = self._opened(ctx_id, await self._store.load(ctx_id, request_id, **how))
        reply = loaded.reply
        return loaded if reply is None else replace(loaded, reply=self._open(reply, "reply", ctx_id, request_id))

    async def commit(self, turn: Turn) -> bytes:
        """See `ContextStore.commit`."""
        ctx_id, number = turn.ctx_id, turn.version + 1
        sealed = replace(
            turn,
            main=self._seal(turn.main, "main", ctx_id, str(number)),
            turns={n: self._seal(content, "turn", ctx_id, str(n)) for n, content in turn.turns.items()},
            reply=self._seal(turn.reply, "reply", ctx_id, turn.request_id),
        )
        return self._open(await self._store.commit(sealed), "reply", ctx_id, turn.request_id)

    async def edit(self, edit: Edit) -> None:
        """See `ContextStore.edit`."""
        ctx_id = edit.ctx_id
        turns = {n: self._seal(content, "turn", ctx_id, str(n)) for n, content in edit.turns.items()}
        main = self._seal(edit.main, "main", ctx_id, str(edit.new_version))
        await self._store.edit(replace(edit, main=main, turns=turns))

    async def peek(self, ctx_id: str, history: int) -> Loaded | None:
        """See `ContextStore.peek`."""
        loaded = await self._store.peek(ctx_id, history)
        return None if loaded is None else self._opened(ctx_id, loaded)

    async def read_turns(self, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, bytes]:
        """See `ContextStore.read_turns`."""
        return self._opened_turns(ctx_id, await self._store.read_turns(ctx_id, turn_ids))

    async def read_outbox(self, ctx_id: str) -> Outbox:
        """See `ContextStore.read_outbox`."""
        outbox = await self._store.read_outbox(ctx_id)
        replies = {name: self._open(reply, "reply", ctx_id, name) for name, reply in outbox.replies.items()}
        return replace(outbox, replies=replies)

    def _opened(self, ctx_id: str, loaded: Loaded) -> Loaded:
        main = loaded.main
        if main is not None:
            main = self._open(main, "main", ctx_id, str(loaded.version))
        return replace(loaded, main=main, turns=self._opened_turns(ctx_id, loaded.turns))

    def _opened_turns(self, ctx_id: str, turns: Mapping[int, bytes]) -> dict[int, bytes]:
        return {n: self._open(content, "turn", ctx_id, str(n)) for n, content in turns.items()}

    def _seal(self, content: bytes, *place: str) -> bytes:
        key_id = self._keys.writing
        if key_id is None:
            return content
        return bytes([SEALED, len(key_id)]) + key_id.encode() + self._keys.seal(content, key_id, "stored", *place)

    def _open(self, stored: bytes, what: str, ctx_id: str, which: str) -> bytes:
        try:
            if stored[:1] != bytes([SEALED]):
                require_plain(self._keys)
                return stored
            begin = 2 + stored[1]
            return self._keys.open(stored[begin:], stored[2:begin].decode(), "stored", what, ctx_id, which)
        except (DecryptionFailed, IndexError, UnicodeDecodeError) as error:
            raise RequestRejected(
                Reason.CONTEXT_INVALID,
                "what is stored for this dialog cannot be read",
                internal=f"stored context {ctx_id!r}: {what} {which}: {error}",
            ) from error
