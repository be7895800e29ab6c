"""A Chatsky context as JSON, all of it that a bot can see: for comparing one that was kept here with one kept there.

A slot that is not extracted holds an exception as its value, which nobody reads and which is not compared.
"""

from typing import Any

SLOT, SLOTS = "ExtractedValueSlot", "ExtractedGroupSlot"


async def snapshot(context: Any) -> dict[str, Any]:
    """Everything stored of a `chatsky.Context`, older turns loaded."""
    return {
        "current_turn_id": context.current_turn_id,
        "misc": context.misc,
        "stats": context.framework_data.stats,
        "slots": slot_value(context.framework_data.slot_manager.slot_storage),
        "labels": {number: label.model_dump(mode="json") for number, label in await context.labels.items()},
        "requests": {number: request.model_dump(mode="json") for number, request in await context.requests.items()},
        "responses": {number: response.model_dump(mode="json") for number, response in await context.responses.items()},
    }


def slot_value(slot: Any) -> Any:
    """A group as a dictionary, a value as whether it is extracted, the value, and its default."""
    if type(slot).__name__ == SLOTS:
        return {name: slot_value(member) for name, member in slot.model_extra.items()}
    assert type(slot).__name__ == SLOT
    return [slot.is_slot_extracted, slot.extracted_value if slot.is_slot_extracted else None, slot.default_value]
