"""Chatsky's `Context` for a turn: made from what the turn loaded, at the same cost however long the dialog is.

Chatsky makes its contexts in `Context.connected`, which reads all turn ids three times and sorts them at each look at
the last one. `Pipeline._run_pipeline` finds that class as a name in its module, and here it finds a subclass that does
the same for a `TurnStorage` and leaves every other storage to Chatsky (docs/decisions/0013).
"""

from collections.abc import Mapping
from typing import Any, Self

import chatsky.core.pipeline
from chatsky import AbsoluteNodeLabel, Context, Message
from chatsky.context_storages import DBContextStorage
from chatsky.core.ctx_dict import ContextDict, LabelContextDict, MessageContextDict, _get_hash
from pydantic import TypeAdapter
from pydantic_core import from_json

from interfaces.bridge import from_chatsky, message_from_json
from interfaces.errors import Reason, RequestRejected
from worker.chatsky.dialog import Dialog
from worker.chatsky.storage import TurnStorage


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
        try:
            return from_chatsky(message).model_dump_json().encode()
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


class _TurnTable(ContextDict):  # type: ignore[misc]  # Chatsky has no types
    """What the two tables of a turn have in common."""

    def keys(self) -> list[int]:
        """All turn ids with an item, in order: a list, as bots may put it anywhere. Nothing is sorted anew."""
        return list(self._keys)

    def latest(self) -> Any:
        """The item with the highest turn id, `None` where there is none; it does not ask for all `keys()`."""
        return self._items[self._keys[-1]] if self._keys else None

    async def _load_items(self, keys: list[int]) -> None:
        """As Chatsky's, with `origin.message` as it came from the wire."""
        dialog: Dialog = self._storage.dialog
        self._hold(await dialog.items(self._field_name, keys))

    def _hold(self, items: Mapping[int, Any]) -> None:
        for turn_id, item in items.items():
            self._items[turn_id] = value = self._value_type.read(item)
            if self._storage.rewrite_existing:
                self._hashes[turn_id] = _get_hash(self._value_type.dump_json(value))

    @classmethod
    async def of(cls, storage: TurnStorage, dialog: Dialog, table: str) -> Self:
        """The table of `dialog`, with the items in it that the storage's `partial_read_config` wants."""
        instance = cls()
        instance._storage, instance._ctx_id, instance._field_name = storage, dialog.ctx_id, table
        instance._keys = dialog.ids[table].copy()
        instance._hold(await dialog.items(table, storage.latest(dialog, table)))
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
        info = {} if dialog.info is None else {name: getattr(dialog.info, name) for name in _INFO}
        context = cls(id=id, labels=labels, **tables, **info)
        context._storage = storage
        return context


_INFO = ("current_turn_id", "created_at", "updated_at", "misc", "framework_data")
_MESSAGES = _Messages()
_LABELS = _Labels()


def make_pipelines_use_it() -> None:
    """Let every `Pipeline` of this process make its contexts here."""
    chatsky.core.pipeline.Context = TurnContext
