"""Slots and statistics of Chatsky as JSON: what comes back is what was there, and nothing else goes in."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from chatsky.core.ctx_utils import FrameworkData
from chatsky.slots.slots import ExtractedGroupSlot, ExtractedValueSlot, SlotManager, SlotNotExtracted
from pydantic_core import from_json, to_json

from worker.chatsky.framework_data import read_framework_data, write_framework_data


def extracted(value: Any, default: Any = None) -> ExtractedValueSlot:
    return ExtractedValueSlot.model_construct(is_slot_extracted=True, extracted_value=value, default_value=default)


def missing(error: Exception, default: Any = None) -> ExtractedValueSlot:
    return ExtractedValueSlot.model_construct(is_slot_extracted=False, extracted_value=error, default_value=default)


def group(**slots: Any) -> ExtractedGroupSlot:
    group = ExtractedGroupSlot()
    group.__pydantic_extra__ = slots
    return group


def data(stats: dict[str, Any] | None = None, **slots: Any) -> FrameworkData:
    return FrameworkData(stats=stats or {}, slot_manager=SlotManager.model_construct(slot_storage=group(**slots)))


def round_trip(written: FrameworkData) -> FrameworkData:
    return read_framework_data(from_json(to_json(write_framework_data(written))))


VALUES: list[Any] = [
    *("", "Ada", 0, 1.5, True, None, [1, [None]], {"a": {"b": []}}, "gASVJgAAAAAAAACMCGJ1aWx0aW5z"),
    *(date(2026, 2, 3), datetime(2026, 2, 3, 4, 5, tzinfo=UTC), time(4, 5), timedelta(days=1, microseconds=1)),
    *(Decimal("1.10"), UUID(int=7), (1, "two"), {1, 2}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_slot_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    slot = round_trip(data(place=extracted(value, default=value))).slot_manager.get_extracted_slot("place")
    assert (slot.value, type(slot.value)) == (value, type(value))
    assert slot.is_slot_extracted
    assert slot.default_value == value


def test_groups_and_missing_slots_come_back() -> None:
    before = data(
        {"calls": [1, 2]},
        person=group(name=extracted("Ada"), age=missing(SlotNotExtracted("no number"), default=0), more=group()),
    )
    after = round_trip(before)
    assert after.stats == {"calls": [1, 2]}
    manager = after.slot_manager
    assert manager.is_slot_extracted("person.name")
    age = manager.get_extracted_slot("person.age")
    assert (age.value, str(age.extracted_value)) == (0, "no number")
    assert isinstance(age.extracted_value, SlotNotExtracted)
    assert manager.slot_storage.model_fields_set == before.slot_manager.slot_storage.model_fields_set


def test_the_error_of_an_extraction_is_kept_as_its_text() -> None:
    slot = round_trip(data(place=missing(ZeroDivisionError("division by zero")))).slot_manager.get_extracted_slot(
        "place"
    )
    assert str(slot.extracted_value) == "division by zero"


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1: "a"}, [(1, 2)], (1, (2,)), float("nan"), SlotNotExtracted("odd")]
)
def test_a_value_that_json_cannot_keep_is_refused_with_the_name_of_its_slot(value: Any) -> None:
    with pytest.raises(ValueError, match=r"the slot 'person\.pet'"):
        write_framework_data(data(person=group(pet=extracted(value))))


def test_a_statistic_that_is_not_json_is_refused_with_its_key() -> None:
    with pytest.raises(ValueError, match="'times'"):
        write_framework_data(data({"times": {"last": object()}}))


def test_nothing_stored_makes_nothing() -> None:
    assert write_framework_data(FrameworkData()) == {}
    assert read_framework_data({}).stats == {}
