"""A hotel: slots of every kind, filled over many turns, in part, anew, with a failing one among them, and unset."""

# mypy: allow-subclassing-any

from typing import Any

from chatsky import (
    GLOBAL,
    PRE_RESPONSE,
    PRE_TRANSITION,
    RESPONSE,
    TRANSITIONS,
    BaseResponse,
    Context,
    Message,
    MessageInitTypes,
    Pipeline,
)
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import processing as proc
from chatsky import responses as rsp
from chatsky.slots import FunctionSlot, GroupSlot, RegexpSlot
from chatsky.slots.slots import SlotNotExtracted, ValueSlot

from tests.bots.chatsky import Dialogs


def wishes(message: Message) -> Any:
    """A list of dictionaries, or nothing."""
    words = (message.text or "").split(" with ")[1:]
    return [{"wish": word, "length": len(word)} for word in words] or SlotNotExtracted("no wish")


async def nights(message: Message) -> Any:
    """A number; raises where the text after the word is none."""
    text = message.text or ""
    return int(text.split("nights ")[1].split()[0]) if "nights " in text else SlotNotExtracted("not said")


def nothing_at_all(message: Message) -> Any:
    """`None`, which is a value too."""
    return None if message.text == "nothing at all" else SlotNotExtracted("something")


class TurnSlot(ValueSlot, frozen=True):  # type: ignore[call-arg]  # of pydantic, which is behind the untyped base
    """A slot of its own type, which looks at the context."""

    async def extract_value(self, ctx: Context) -> Any:
        return {"turn": ctx.current_turn_id, "of": [ctx.last_request.text]}


class Report(BaseResponse):
    """Every slot by its own words: whether it is extracted, and its value."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        manager = ctx.framework_data.slot_manager
        names = ("guest.name", "guest.email", "stay.from", "stay.to", "nights", "wishes", "nothing", "when")
        slots = {name: manager.get_extracted_slot(name) for name in names}
        values = {name: [slot.is_slot_extracted, slot.value] for name, slot in slots.items()}
        groups = {name: manager.is_slot_extracted(name) for name in ("guest", "stay")}
        return {"text": str(manager.all_slots_extracted()), "misc": {"values": values, "groups": groups}}


name, email = (
    RegexpSlot(regexp=r"I am (\w+)", match_group_idx=1),
    RegexpSlot(regexp=r"\S+@\S+", default_value="none@none"),
)
extract_all = {
    "stay": proc.Extract("stay", success_only=False),
    "single": proc.Extract("guest.name", "guest.email"),
    "others": proc.Extract("nights", "wishes", "nothing", "no.such.slot"),
}

pipeline = Pipeline(
    script={
        GLOBAL: {
            PRE_TRANSITION: extract_all,
            TRANSITIONS: [
                Tr(dst=("hotel", "report"), cnd=cnd.ExactMatch("report"), priority=4),
                Tr(dst=("hotel", "forget"), cnd=cnd.ExactMatch("forget me"), priority=3),
                Tr(dst=("hotel", "all_forgotten"), cnd=cnd.ExactMatch("forget all"), priority=3),
                Tr(dst=("hotel", "when"), cnd=cnd.ExactMatch("when"), priority=3),
                Tr(dst=("hotel", "bad"), cnd=cnd.ExactMatch("bad template"), priority=3),
                Tr(dst=("hotel", "kept"), cnd=cnd.ExactMatch("kept template"), priority=3),
                Tr(dst=("hotel", "booked"), cnd=cnd.SlotsExtracted("guest", "stay"), priority=2),
                Tr(dst=("hotel", "halfway"), cnd=cnd.SlotsExtracted("guest.name", "stay.from", mode="any")),
                Tr(dst=("hotel", "ask"), priority=0.1),
            ],
        },
        "hotel": {
            "start": {},
            "ask": {RESPONSE: "Your name, please."},
            "halfway": {
                PRE_RESPONSE: {"fill": proc.FillTemplate()},
                RESPONSE: "{guest.name}, {guest.email}: {stay}, {nights} nights",
            },
            "booked": {RESPONSE: rsp.FilledTemplate("Booked for {guest.name} from {stay.from}. Wishes: {wishes}")},
            "report": {RESPONSE: Report()},
            "forget": {PRE_RESPONSE: {"unset": proc.Unset("guest.email", "nights", "nobody")}, RESPONSE: "Forgotten."},
            "all_forgotten": {PRE_RESPONSE: {"unset": proc.UnsetAll()}, RESPONSE: Report()},
            "when": {PRE_RESPONSE: {"when": proc.Extract("when"), "fill": proc.FillTemplate()}, RESPONSE: "{when}"},
            "bad": {RESPONSE: rsp.FilledTemplate("{guest.name.first}{0}")},
            "kept": {RESPONSE: rsp.FilledTemplate("{nobody[x]}", on_exception="keep_template")},
        },
    },
    start_label=("hotel", "start"),
    slots=GroupSlot(
        guest=GroupSlot(name=name, email=email),
        stay=GroupSlot(
            allow_partial_extraction=True,
            **{
                "from": RegexpSlot(regexp=r"from (\S+)", match_group_idx=1),
                "to": RegexpSlot(regexp=r"to (\S+)", match_group_idx=1),
            },
        ),
        nights=FunctionSlot(func=nights, default_value=[1, {"more": None}]),
        wishes=FunctionSlot(func=wishes),
        nothing=FunctionSlot(func=nothing_at_all, default_value="something"),
        when=TurnSlot(),
    ),
)

DIALOGS: Dialogs = {
    "guest": [
        "hello", "report", "I am Ada", "from monday", "report", "nights 3 with balcony with view", "nights many",
        "ada@example.org", "report", "to friday with a tub", "report", "when", "forget me", "report", "I am Bea",
        "bea@example.org", "nothing at all", "report", "kept template", "bad template", "forget all", "report",
        "I am Cid",
    ],
    "hasty": [
        "I am Dan from 1.5. to 3.5. dan@example.org nights 2 with wifi", "report", "when", "report", "forget all",
        "hm",
    ],
    "quiet": ["when", "report", "nothing at all", "report", "bad template", "forget me"],
}  # fmt: skip
