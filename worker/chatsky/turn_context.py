"""Chatsky's `Context` for a turn: made from what the turn loaded, at the same cost however long the dialog is.

Chatsky makes its contexts in `Context.connected`, which reads all turn ids three times and sorts them at each look at
the last one. `Pipeline._run_pipeline` finds that class as a name in its module, and here it finds a subclass that does
the same for a `TurnStorage` and leaves every other storage to Chatsky (docs/decisions/0013).
"""

from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Self

import chatsky.core.pipeline
from chatsky import AbsoluteNodeLabel, Context, Message
from chatsky.context_storages import DBContextStorage
from chatsky.core.ctx_dict import ContextDict, LabelContextDict, MessageContextDict, _get_hash
from pydantic import PrivateAttr, TypeAdapter
from pydantic_core import from_json, to_json

from interfaces.bridge import from_chatsky, message_from_json
from interfaces.errors import Reason, RequestRejected
from interfaces.messages import message_json
from worker.chatsky.dialog import TABLES, Dialog, MainInfo
from worker.chatsky.storage import TurnStorage

_MISC: Final = TypeAdapter(dict[str, Any])


class _Messages:
    """Reads and writes messages as our JSON, in place of a `TypeAdapter`, which would pickle and unpickle."""

    _adapter = TypeAdapter(Message)

    def validate_python(self, value: Any) -> Message:
        return self._adapter.validate_python(value)

    def validate_json(self, item: bytes) -> Message:
        return self.read(from_json(item))

    def read(self, item: Any) -> Message:
        return message_from_json(item)

    def dump_json(self, message: Message) -> bytes:
        return to_json(self.plain(message))

    def plain(self, message: Message) -> Any:
        try:
            return message_json(from_chatsky(message))
        except ValueError as error:
            raise RequestRejected(
                Reason.REPLY_INVALID, "the dialog's data cannot be stored", internal=f"a message: {error}"
            ) from error


class _Labels:
    """The same for labels."""

    _adapter = TypeAdapter(AbsoluteNodeLabel)

    def validate_python(self, value: Any) -> AbsoluteNodeLabel:
        return self._adapter.validate_python(value)

    def validate_json(self, item: bytes) -> AbsoluteNodeLabel:
        return self._adapter.validate_json(item)

    def read(self, item: Any) -> AbsoluteNodeLabel:
        return self._adapter.validate_python(item)

    def dump_json(self, label: AbsoluteNodeLabel) -> bytes:
        return self._adapter.dump_json(label)

    def plain(self, label: AbsoluteNodeLabel) -> Any:
        return self._adapter.dump_python(label, mode="json")


class _TurnTable(ContextDict):  # type: ignore[misc]  # Chatsky has no types
    """What the two tables of a turn have in common."""

    if TYPE_CHECKING:
        _added: set[int]
        _removed: set[int]

    def __getattr__(self, name: str) -> Any:
        # Pydantic looks in three places for what is private here, forty times in a turn.
        private = None if name.startswith("__") else self.__pydantic_private__
        return private[name] if private is not None and name in private else super().__getattr__(name)

    def keys(self) -> list[int]:
        """All turn ids with an item, in order: a list, as bots may put it anywhere. Nothing is sorted anew."""
        return list(self._keys)

    def latest(self) -> Any:
        """The item with the highest turn id, `None` where there is none; it does not ask for all `keys()`."""
        if not self._keys:
            return None
        latest = self._keys[-1]
        self._hold_what_is_here(latest)
        return self._items[latest]

    def __delitem__(self, key: int | slice) -> None:
        if isinstance(key, int):
            self._hold_what_is_here(key)  # Chatsky deletes only what it holds.
        super().__delitem__(key)

    def changes(self) -> dict[int, Any]:
        """What is to be stored, by turn id: items as plain JSON, `None` for what was removed. They are told once."""
        added, removed = self._added, self._removed
        self._added, self._removed = set(), set()
        items = {turn_id: self._value_type.plain(self._items[turn_id]) for turn_id in added}
        return items | dict.fromkeys(removed - added)

    async def _load_items(self, keys: list[int]) -> None:
        """As Chatsky's, with `origin.message` as it came from the wire."""
        dialog: Dialog = self._storage.dialog
        self._hold(await dialog.items(self._field_name, keys))

    def _hold(self, items: Mapping[int, Any]) -> None:
        for turn_id, item in items.items():
            self._items[turn_id] = value = self._value_type.read(item)
            if self._storage.rewrite_existing:
                self._hashes[turn_id] = _get_hash(self._value_type.dump_json(value))

    def _hold_what_is_here(self, turn_id: int) -> None:
        """Build an item that came with the turn. Chatsky builds all at once; most bots look at the last one alone."""
        if turn_id not in self._items:
            self._hold(self._storage.dialog.items_here(self._field_name, [turn_id]))

    @classmethod
    async def of(cls, storage: TurnStorage, dialog: Dialog, table: str) -> Self:
        """The table of `dialog`; what the storage's `partial_read_config` wants of it is here without another call."""
        await dialog.fetch(storage.latest(dialog, table))
        instance: Self = cls.model_construct()
        own = {"_storage": storage, "_ctx_id": dialog.ctx_id, "_field_name": table, "_keys": dialog.ids[table].copy()}
        instance.__pydantic_private__.update(own, _items={}, _hashes={})
        return instance


class TurnMessages(_TurnTable, MessageContextDict):  # type: ignore[misc]
    """Requests or responses."""

    @property
    def _value_type(self) -> _Messages:
        return _MESSAGES


class TurnLabels(_TurnTable, LabelContextDict):  # type: ignore[misc]
    """Labels."""

    @property
    def _value_type(self) -> _Labels:
        return _LABELS


class TurnContext(Context):  # type: ignore[misc]
    """Chatsky's `Context`, made from a `Dialog` where the storage has one for it."""

    # Chatsky's own has a default, which pydantic copies for every context.
    _misc_adaptor: TypeAdapter[dict[str, Any]] = PrivateAttr(default_factory=lambda: _MISC)

    @property
    def last_label(self) -> AbsoluteNodeLabel:
        """See Chatsky's `Context.last_label`."""
        labels = self.labels
        return labels.latest() if isinstance(labels, TurnLabels) and len(labels) else super().last_label

    @property
    def last_request(self) -> Message:
        """See Chatsky's `Context.last_request`."""
        requests = self.requests
        return requests.latest() if isinstance(requests, TurnMessages) and len(requests) else super().last_request

    @property
    def last_response(self) -> Message | None:
        """See Chatsky's `Context.last_response`."""
        responses = self.responses
        return responses.latest() if isinstance(responses, TurnMessages) else super().last_response

    @classmethod
    async def connected(
        cls,
        storage: DBContextStorage,
        start_label: AbsoluteNodeLabel | None = None,
        id: str | None = None,  # noqa: A002 - Chatsky's name
    ) -> Context:
        """See Chatsky's `Context.connected`."""
        dialog = storage.dialog if isinstance(storage, TurnStorage) else None
        if dialog is None or dialog.ctx_id != id:
            return await super().connected(storage, start_label, id)
        labels = await TurnLabels.of(storage, dialog, "labels")
        tables = {table: await TurnMessages.of(storage, dialog, table) for table in ("requests", "responses")}
        if len(labels) == 0:  # A new dialog, or one that a handler has begun.
            labels[0] = start_label
        info = dialog.info or MainInfo.new()
        fields = {name: getattr(info, name) for name in _INFO}
        # Nothing in it comes from anywhere but here.
        context = cls.model_construct(id=id, labels=labels, **tables, **fields, origin_interface=None)
        context.__pydantic_private__["_storage"] = storage
        return context

    async def store(self) -> None:
        """See Chatsky's `Context.store`."""
        storage = self._storage
        dialog = storage.dialog if isinstance(storage, TurnStorage) and not storage.rewrite_existing else None
        tables = {name: getattr(self, name) for name in TABLES}
        if dialog is None or dialog.ctx_id != self.id or not all(isinstance(t, _TurnTable) for t in tables.values()):
            await super().store()
            return
        # Without its bytes of JSON, which would be parsed again.
        dialog.info = MainInfo(self.current_turn_id, self.created_at, time_ns(), self.misc, self.framework_data)
        for name, table in tables.items():
            await dialog.write(name, table.changes())


_INFO = MainInfo.__slots__
_MESSAGES = _Messages()
_LABELS = _Labels()


def make_pipelines_use_it() -> None:
    """Let every `Pipeline` of this process make its contexts here."""
    chatsky.core.pipeline.Context = TurnContext
