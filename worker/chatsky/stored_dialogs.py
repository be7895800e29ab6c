"""A dialog as Chatsky's Redis storage keeps it, made into what ours keeps: checked, without pickles, as plain JSON.

Chatsky writes values that are not JSON as pickles, and all slot values, even text. Those that are plain data are taken;
anything else refuses the dialog, with the key and how to mend it. Called by the import, for each dialog.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatsky.core.ctx_utils import FrameworkData
from chatsky.slots.slots import ExtractedGroupSlot, ExtractedValueSlot, SlotManager, SlotNotExtracted
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from interfaces.data_model import PICKLED_FIELDS, json_object
from interfaces.envelope import first_fault
from interfaces.messages import Message
from interfaces.turn_records import NodeLabel
from worker.chatsky.dialog import TABLES, Dialog, MainInfo
from worker.chatsky.pickles import Missing, unpickle_plain
from worker.stores import Edit

TYPES: Final[Mapping[str, type[BaseModel]]] = {"labels": NodeLabel, "requests": Message, "responses": Message}
LAST_TURN: Final = 10**9
MEND: Final = "let the bot keep text, numbers, lists or dictionaries there, and store the dialog once more"


@dataclass(frozen=True, slots=True)
class StoredDialog:
    """What Chatsky's storage has of one dialog, as bytes."""

    ctx_id: str
    main: Mapping[bytes, bytes]
    tables: Mapping[str, Mapping[bytes, bytes]]
    """By table the items, by turn id."""


async def new_context(stored: StoredDialog, edit_id: str) -> Edit:
    """The edit that makes this dialog a context. Raises `ValueError` that names what cannot be taken."""
    dialog = Dialog(stored.ctx_id, None, _no_turns)
    await dialog.open()
    dialog.info = _main_info(stored.main)
    for table in TABLES:
        await dialog.write(table, _items(table, stored.tables.get(table, {})))
    version: int = dialog.info.current_turn_id
    turns = {turn_id: dialog.turn_record(turn_id) for turn_id in dialog.changed}
    return Edit(stored.ctx_id, edit_id, 0, 0, version, dialog.main_record(version), turns)


async def _no_turns(_: Sequence[int]) -> Mapping[int, bytes]:
    return {}


def _main_info(main: Mapping[bytes, bytes]) -> MainInfo:
    framework_data = _json_of(main, "framework_data")
    stats, manager = framework_data.get("stats", {}), framework_data.get("slot_manager", {})
    slots = manager.get("slot_storage", {}) if isinstance(manager, dict) else None
    if not isinstance(stats, dict) or not isinstance(slots, dict):
        raise ValueError("main, framework_data: it is not what Chatsky 0.10 writes")
    return MainInfo(
        current_turn_id=_number(main.get(b"current_turn_id"), "main, current_turn_id", LAST_TURN),
        created_at=_number(main.get(b"created_at"), "main, created_at"),
        updated_at=_number(main.get(b"updated_at"), "main, updated_at"),
        misc=_json_of(main, "misc"),
        framework_data=FrameworkData(
            stats=stats, slot_manager=SlotManager.model_construct(slot_storage=_group(slots, ""))
        ),
    )


def _items(table: str, items: Mapping[bytes, bytes]) -> dict[int, Any]:
    read: dict[int, Any] = {}
    for field, item in items.items():
        turn_id = _number(field, f"{table}, a turn id", LAST_TURN)
        key = f"{table}[{turn_id}]"
        raw = _without_pickles(_parsed(item, key), key)
        if table != "labels" and isinstance(raw, dict) and isinstance(raw.get("origin"), dict):
            raw["origin"]["message"] = None
        try:
            read[turn_id] = TYPES[table].model_validate(raw).model_dump(mode="json")
        except ValidationError as error:
            raise ValueError(f"{key}, {first_fault(error)}") from error
    return read


def _without_pickles(value: Any, key: str) -> Any:
    """Parsed JSON with the pickles in it read, `origin.message` excepted, which is not marked as one."""
    if isinstance(value, list):
        return [_without_pickles(item, f"{key}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    marked = value.pop(PICKLED_FIELDS, [])
    if not isinstance(marked, list) or not all(name in value for name in marked if isinstance(name, str)):
        raise ValueError(f"{key}.{PICKLED_FIELDS}: it names no fields")
    return {
        name: _from_pickle(item, f"{key}.{name}") if name in marked else _without_pickles(item, f"{key}.{name}")
        for name, item in value.items()
    }


def _from_pickle(item: Any, key: str) -> Any:
    value = _unpickled(item, key)
    try:
        is_json = json_object({key: value})[key] == value
    except ValueError:
        is_json = False
    if not is_json:
        raise ValueError(f"{key}: it holds what is not JSON; {MEND}")
    return value


def _unpickled(item: Any, key: str) -> Any:
    if not isinstance(item, str):
        raise ValueError(f"{key}: it is no pickle")
    try:
        return unpickle_plain(item)
    except ValueError as error:
        raise ValueError(f"{key}: {error}; {MEND}") from error


def _group(slots: Mapping[str, Any], path: str) -> ExtractedGroupSlot:
    group = ExtractedGroupSlot()
    # Around validation, which unpickles.
    group.__pydantic_extra__ = {name: _slot(slot, f"{path}{name}") for name, slot in slots.items()}
    return group


def _slot(slot: Any, path: str) -> ExtractedGroupSlot | ExtractedValueSlot:
    if not isinstance(slot, dict):
        raise ValueError(f"the slot {path!r}: it is not what Chatsky 0.10 writes")
    is_extracted = slot.get("is_slot_extracted")
    if not isinstance(is_extracted, bool):
        return _group(slot, f"{path}.")
    extracted, default = slot.get("extracted_value"), slot.get("default_value")
    key = f"the slot {path!r}"
    return ExtractedValueSlot.model_construct(
        is_slot_extracted=is_extracted,
        extracted_value=_slot_value(extracted, key) if is_extracted else _why_missing(extracted),
        default_value=_slot_value(default, f"{key}, default value"),
    )


def _slot_value(item: Any, key: str) -> Any:
    return None if item is None else _unpickled(item, key)


def _why_missing(item: Any) -> SlotNotExtracted:
    """Nothing rests on why a slot has no value, so an error of a class that is not found here takes nothing away."""
    try:
        value = unpickle_plain(item) if isinstance(item, str) else None
    except ValueError:
        value = None
    return SlotNotExtracted(value.reason if isinstance(value, Missing) else "Not extracted before the import.")


def _json_of(main: Mapping[bytes, bytes], name: str) -> dict[str, Any]:
    value = _parsed(main.get(name.encode(), b"null"), f"main, {name}")
    if not isinstance(value, dict):
        raise ValueError(f"main, {name}: it is missing or no JSON object")
    return value


def _parsed(stored: bytes, key: str) -> Any:
    try:
        return from_json(stored, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _number(stored: bytes | None, key: str, highest: int = 2**63) -> int:
    if stored is None or not stored.isdigit() or len(stored) > 20 or int(stored) > highest:
        raise ValueError(f"{key}: {stored!r:.60} is no whole number in range")
    return int(stored)
