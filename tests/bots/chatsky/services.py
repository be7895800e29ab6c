"""A parcel office: services before and after the actor, in groups, side by side, conditional, failing, and too slow."""

# mypy: allow-subclassing-any

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from chatsky import (
    GLOBAL,
    RESPONSE,
    TRANSITIONS,
    BaseCondition,
    BaseProcessing,
    BaseResponse,
    Context,
    MessageInitTypes,
    Pipeline,
)
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky.core.service import Service, ServiceGroup
from chatsky.core.service.service import to_service
from chatsky.core.service.types import ComponentExecutionState

from tests.bots.chatsky import Dialogs

TOO_LONG = 0.02


def trace(ctx: Context, what: str) -> None:
    """Note what was run, in the order in which it was."""
    ctx.misc.setdefault("trace", []).append(what)


class Said(BaseCondition):
    """Whether the request has a word."""

    word: str

    async def call(self, ctx: Context) -> bool:
        return self.word in (ctx.last_request.text or "")


def begin(ctx: Context) -> None:
    """A plain function: a trace for this turn only."""
    ctx.misc["trace"] = []
    ctx.misc["visits"] = ctx.misc.get("visits", 0) + 1


class Weigh(Service):
    """A service that sees its own fields."""

    grams: int = 100

    async def call(self, ctx: Context) -> None:
        ctx.misc["weight"] = ctx.misc.get("weight", 0) + self.grams
        trace(ctx, f"{self.path} {self.grams}")


class Stamp(BaseProcessing):
    """A processing as a service."""

    async def call(self, ctx: Context) -> None:
        trace(ctx, "stamp")
        ctx.last_request.misc = {**(ctx.last_request.misc or {}), "stamped": ctx.misc["visits"]}


async def fragile(ctx: Context) -> None:
    """Changes the misc and then raises: the change stays."""
    ctx.misc["broken"] = ctx.misc.get("broken", 0) + 1
    raise ValueError("dropped")


async def endless(ctx: Context) -> None:
    """Takes too long. It changes nothing: on a busy machine its time may be up before it begins."""
    await asyncio.Event().wait()


def courier(name: str, steps: int) -> Callable[[Context], Awaitable[None]]:
    """A service that gives way to the others so many times."""

    async def carry(ctx: Context) -> None:
        trace(ctx, f"{name} starts")
        for _ in range(steps):
            await asyncio.sleep(0)
        trace(ctx, f"{name} ends")

    carry.__name__ = name
    return carry


@to_service(name="receipt", start_condition=cnd.Not(cnd.ServiceFinished(".pre.fragile")))  # type: ignore[untyped-decorator]
async def receipt(ctx: Context) -> None:
    """Changes the response of the turn, which the actor has set."""
    ctx.last_response.text += f" Receipt {ctx.misc['visits']}."


async def rewrite(ctx: Context) -> None:
    """Replaces the response of the turn."""
    old = ctx.responses._items[ctx.current_turn_id]
    ctx.responses[ctx.current_turn_id] = old.model_copy(update={"misc": {"replaced": old.text}})


class States(Service):
    """Notes how every component of the pipeline ended; gone from the context after the turn."""

    async def call(self, ctx: Context) -> None:
        states = ctx.framework_data.service_states
        ctx.misc["states"] = {
            path: ComponentExecutionState(state.execution_status).value for path, state in states.items()
        }


class Counter(BaseResponse):
    """Whether the last turns' service ran, and what it left."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return f"Visit {ctx.misc['visits']}, {ctx.misc['weight']} g, broken {ctx.misc.get('broken', 0)}."


couriers = ServiceGroup(
    name="couriers",
    components=[
        courier("bike", 3),
        courier("van", 1),
        courier("foot", 2),
        {"handler": fragile, "start_condition": Said(word="rain")},
    ],
    fully_concurrent=True,
)
waiting = ServiceGroup(
    name="waiting",
    fully_concurrent=True,
    components=[
        Service(
            handler=courier("after", 0),
            name="after",
            start_condition=cnd.ServiceFinished(".post.waiting.before", wait=True),
        ),
        Service(handler=courier("before", 2), name="before", start_condition=cnd.Not(Said(word="closed"))),
    ],
)
mixed: list[Any] = [
    {"handler": courier("a", 2), "concurrent": True},
    {"handler": courier("b", 0), "concurrent": True},
    courier("c", 1),
    {"handler": courier("d", 0), "concurrent": True, "timeout": 30},
]

pipeline = Pipeline(
    pre_services=[
        begin,
        Weigh(name="weigh"),
        Weigh(grams=7, start_condition=Said(word="heavy")),
        Service(handler=Stamp(), timeout=30),
        Service(handler=fragile, name="fragile", start_condition=Said(word="fragile")),
        Service(handler=endless, name="endless", start_condition=Said(word="slow"), timeout=TOO_LONG),
        couriers,
    ],
    script={
        GLOBAL: {
            TRANSITIONS: [
                Tr(
                    dst=("office", "damaged"),
                    cnd=cnd.All(Said(word="fragile"), cnd.Not(cnd.ServiceFinished(".pre.fragile"))),
                ),
                Tr(dst=("office", "wet"), cnd=cnd.Not(cnd.ServiceFinished(".pre.couriers"))),
                Tr(
                    dst=("office", "late"), cnd=cnd.All(Said(word="slow"), cnd.Not(cnd.ServiceFinished(".pre.endless")))
                ),
                Tr(dst=("office", "served"), priority=0.5),
            ]
        },
        "office": {
            "door": {},
            "damaged": {RESPONSE: "Damaged."},
            "wet": {RESPONSE: "Wet."},
            "late": {RESPONSE: "Late."},
            "served": {RESPONSE: Counter()},
        },
    },
    post_services=[
        receipt,
        Service(handler=rewrite, start_condition=Said(word="copy")),
        waiting,
        ServiceGroup(components=mixed, name="mixed"),
        States(),
    ],
    start_label=("office", "door"),
    timeout=60,
)

DIALOGS: Dialogs = {
    "sender": [
        "letter", "heavy parcel", "fragile parcel", "slow parcel", "copy", "rain", "closed",
        "heavy fragile slow copy closed",
        "letter", {"text": "card", "misc": {"to": "Ada"}}, "fragile", "copy of a fragile one", "slow rain", "letter",
    ],
    "regular": ["letter", "letter", "letter", "heavy", "closed", "rain", "slow"],
    "mute": [{}, {}, "slow", {}],
}  # fmt: skip
