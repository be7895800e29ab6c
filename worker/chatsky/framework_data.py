"""Chatsky's framework data, slots and statistics, as plain JSON and back.

Chatsky pickles every slot value, even text. Here a value is stored as JSON, with its type beside it where JSON would
change that; one that has no such form is refused with the slot's name. Nothing is unpickled.
"""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from chatsky.core.ctx_utils import FrameworkData
from chatsky.slots.slots import ExtractedGroupSlot, ExtractedValueSlot, SlotManager, SlotNotExtracted
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from interfaces.data_model import json_object

TYPES: Final = {
    kind.__name__: TypeAdapter[Any](kind) for kind in (datetime, date, time, timedelta, Decimal, UUID, tuple, set)
}
"""Types that slots may have beside those of JSON, by the name that is stored with the value."""


def write_framework_data(data: FrameworkData) -> dict[str, Any]:
    """As JSON. Raises `ValueError`, which names the slot or the statistic that is not JSON."""
    written: dict[str, Any] = {}
    if data.stats:
        written["stats"] = json_object(data.stats)
    if slots := _write_group(data.slot_manager.slot_storage, ""):
        written["slots"] = slots
    return written


def read_framework_data(written: dict[str, Any]) -> FrameworkData:
    """What `write_framework_data` was given. Raises `KeyError`, `TypeError` or `ValueError` where it is none."""
    manager = SlotManager.model_construct(slot_storage=_read_group(written.get("slots", {})))
    return FrameworkData(stats=written.get("stats", {}), slot_manager=manager)


def _write_group(group: ExtractedGroupSlot, path: str) -> dict[str, Any]:
    slots = group.__pydantic_extra__ or {}
    return {name: _write_slot(slot, f"{path}{name}") for name, slot in slots.items()}


def _write_slot(slot: ExtractedGroupSlot | ExtractedValueSlot, path: str) -> dict[str, Any]:
    if isinstance(slot, ExtractedGroupSlot):
        return {"group": _write_group(slot, f"{path}.")}
    written = {"default": _write_value(slot.default_value, path)} if slot.default_value is not None else {}
    if slot.is_slot_extracted:
        return written | {"value": _write_value(slot.extracted_value, path)}
    # An error of the bot's own type is kept as its text: a type is not data.
    return written | {"missing": str(slot.extracted_value)}


def _write_value(value: Any, path: str) -> Any:
    kind = type(value).__name__
    try:
        plain = TYPES[kind].dump_python(value, mode="json") if kind in TYPES else value
        written = {"json": json_object({path: plain})[path], **({"type": kind} if kind in TYPES else {})}
        is_kept = _read_value(from_json(to_json(written))) == value
    except ValueError as error:
        raise ValueError(f"the slot {path!r}: {error}") from error
    if not is_kept:
        raise ValueError(
            f"the slot {path!r} holds a value of type {kind}, which would come back from JSON as something else: "
            f"extract text, numbers, lists, dictionaries with text as keys, or one of {', '.join(TYPES)}"
        )
    return written


def _read_group(written: dict[str, Any]) -> ExtractedGroupSlot:
    group = ExtractedGroupSlot()
    # Around validation, which takes every value for a pickle.
    group.__pydantic_extra__ = {name: _read_slot(slot) for name, slot in written.items()}
    return group


def _read_slot(written: dict[str, Any]) -> ExtractedGroupSlot | ExtractedValueSlot:
    if "group" in written:
        return _read_group(written["group"])
    is_extracted = "value" in written
    return ExtractedValueSlot.model_construct(
        is_slot_extracted=is_extracted,
        extracted_value=_read_value(written["value"]) if is_extracted else SlotNotExtracted(written["missing"]),
        default_value=_read_value(written["default"]) if "default" in written else None,
    )


def _read_value(written: dict[str, Any]) -> Any:
    value = written["json"]
    return TYPES[written["type"]].validate_python(value) if "type" in written else value
