"""A Chatsky context storage on the context store: in a turn it is that turn, outside of one it edits contexts.

In a turn what is written stays in memory: the worker commits it together with the reply, or not at all. Elsewhere each
`update_context` is one atomic edit, which a turn that runs meanwhile notices. Values are JSON; Chatsky's own models get
them without `origin.message`, which they would unpickle.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from chatsky.context_storages import DBContextStorage
from chatsky.core.ctx_utils import ContextMainInfo
from pydantic_core import from_json, to_json

from interfaces.errors import MisuseError, VersionConflict
from worker.chatsky.dialog import Dialog, MainInfo, ReadTurns
from worker.stores import ContextStore, Edit
from worker.stores.patience import while_store_is_away

Items = list[tuple[int, bytes]]
Changes = list[tuple[str, list[tuple[int, bytes | None]]]]
"""By table what is set, and, as `None`, what is removed."""


class TurnStorage(DBContextStorage):  # type: ignore[misc]  # Chatsky has no types
    """Chatsky's `DBContextStorage` on a `ContextStore`.

    :param store: an open store; all calls wait while its server is away.
    :param dialog: the context whose turn this is; `None` outside of turns.
    :param like: a storage to take `partial_read_config` and `rewrite_existing` from.
    :param max_turns: how many turns the store keeps of a context.
    """

    is_concurrent: bool = True

    def __init__(
        self,
        store: ContextStore,
        *,
        dialog: Dialog | None = None,
        like: DBContextStorage | None = None,
        max_turns: int | None = None,
    ) -> None:
        super().__init__("", rewrite_existing=like is not None and like.rewrite_existing)
        if like is not None:
            self._subscripts = like._subscripts  # noqa: SLF001 - Chatsky has no other way to read it
        self.connected = True
        self.dialog = dialog
        self._store = store
        self._max_turns = max_turns

    async def _connect(self) -> None:
        """The store is open."""

    async def _load_main_info(self, ctx_id: str) -> ContextMainInfo | None:
        info = (await self._find(ctx_id)).info
        return None if info is None else info.for_chatsky()

    async def _load_field_keys(self, ctx_id: str, field_name: str) -> list[int]:
        return list((await self._find(ctx_id)).ids[field_name])

    async def _load_field_latest(self, ctx_id: str, field_name: str) -> Items:
        dialog = await self._find(ctx_id)
        return await _items(dialog, field_name, self.latest(dialog, field_name))

    async def _load_field_items(self, ctx_id: str, field_name: str, keys: list[int]) -> Items:
        return await _items(await self._find(ctx_id), field_name, sorted(keys))

    def latest(self, dialog: Dialog, table: str) -> list[int]:
        """Ids of the items that `partial_read_config` wants to be there from the beginning, the latest first."""
        wanted, ids = self._subscripts[table], dialog.ids[table]
        if isinstance(wanted, int):
            return ids[-wanted:][::-1]
        return [turn_id for turn_id in reversed(ids) if wanted == "__all__" or turn_id in wanted]

    async def _update_context(self, ctx_id: str, ctx_info: ContextMainInfo | None, field_info: Changes) -> None:
        if self.dialog is not None and ctx_id == self.dialog.ctx_id:
            await _write(self.dialog, ctx_info, field_info)
        else:
            await self._edit(ctx_id, ctx_info, field_info)

    async def _edit(self, ctx_id: str, ctx_info: ContextMainInfo | None, field_info: Changes) -> None:
        edit_id = uuid4().hex
        while True:
            dialog = await self._find(ctx_id)
            await _write(dialog, ctx_info, field_info)
            version = dialog.info.current_turn_id if dialog.info else 0
            if version < dialog.version:
                raise MisuseError(
                    f"context {ctx_id!r} is at turn {dialog.version}: current_turn_id cannot go back to {version}"
                )
            turns = {turn_id: dialog.turn_record(turn_id) for turn_id in dialog.changed}
            main = dialog.main_record(version)
            edit = Edit(ctx_id, edit_id, dialog.version, dialog.revision, version, main, turns)
            with suppress(VersionConflict):  # A turn, or another edit, came in between: onto what it has left.
                await while_store_is_away(self._store.edit, edit)
                return

    async def _delete_context(self, ctx_id: str) -> None:
        if self.dialog is not None and ctx_id == self.dialog.ctx_id:
            raise MisuseError(f"context {ctx_id!r} cannot be deleted in its own turn, which is about to write it")
        await while_store_is_away(self._store.delete, ctx_id)

    async def _clear_all(self) -> None:
        for ctx_id in [ctx_id async for ctx_id in self._store.context_ids()]:
            await self._delete_context(ctx_id)

    async def _find(self, ctx_id: str) -> Dialog:
        """The dialog of the turn, or what the store has of any other."""
        if self.dialog is not None and ctx_id == self.dialog.ctx_id:
            return self.dialog
        loaded = await while_store_is_away(self._store.peek, ctx_id, 0)
        dialog = Dialog(ctx_id, loaded, reading(self._store, ctx_id), self._max_turns)
        await dialog.open()
        return dialog


def reading(store: ContextStore, ctx_id: str) -> ReadTurns:
    """Reads turns of a context, waiting while the store is away."""

    async def read(turn_ids: Sequence[int]) -> dict[int, bytes]:
        return await while_store_is_away(store.read_turns, ctx_id, turn_ids)

    return read


async def _write(dialog: Dialog, info: ContextMainInfo | None, tables: Changes) -> None:
    if info is not None:
        dialog.info = MainInfo.of(info)
    for table, items in tables:
        parsed = {turn_id: None if item is None else _parse(item, dialog, table, turn_id) for turn_id, item in items}
        await dialog.write(table, parsed)


def _parse(item: bytes, dialog: Dialog, table: str, turn_id: int) -> Any:
    try:
        return from_json(item, allow_inf_nan=False)
    except ValueError as error:
        raise MisuseError(f"context {dialog.ctx_id!r}, {table}[{turn_id}]: only JSON is stored: {error}") from error


async def _items(dialog: Dialog, table: str, turn_ids: Sequence[int]) -> Items:
    items = await dialog.items(table, turn_ids)
    return [(turn_id, to_json(_without_original(items[turn_id]))) for turn_id in turn_ids if turn_id in items]


def _without_original(item: Any) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get("origin"), dict):
        return item
    return {**item, "origin": {**item["origin"], "message": None}}
