"""A storyteller: reads old turns in every way Chatsky has, with hardly one of them loaded at the start of a turn."""

# mypy: allow-subclassing-any

from typing import Any

from chatsky import (
    GLOBAL,
    PRE_TRANSITION,
    RESPONSE,
    TRANSITIONS,
    BaseProcessing,
    BaseResponse,
    Context,
    MessageInitTypes,
    Pipeline,
)
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import destinations as dst
from chatsky.context_storages import MemoryContextStorage

from tests.bots.chatsky import Dialogs


def texts(messages: Any) -> list[str | None]:
    """The texts of messages; `None` for a message that there is not."""
    return [message.text if message is not None else None for message in messages]


def nodes(labels: Any) -> list[str | None]:
    """The nodes' names of labels; `None` for a label that there is not."""
    return [label.node_name if label is not None else None for label in labels]


class Number(BaseProcessing):
    """Gives every request a number of its own, so that an old one can be told from any other."""

    async def call(self, ctx: Context) -> None:
        ctx.last_request.misc = {**(ctx.last_request.misc or {}), "number": ctx.current_turn_id * 11}


class Ask(BaseResponse):
    """Carries out `WHAT ARGUMENTS`: one way of reading the history. Errors are told, they are to be the same."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        what, *arguments = (ctx.last_request.text or "").split()
        try:
            answer = await getattr(self, f"_{what}")(ctx, *map(int, arguments))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return {"text": f"{what}: {answer}", "misc": {"answer": answer}}

    async def _turn(self, ctx: Context, number: int) -> Any:
        request, label, response = await ctx.turns[number]
        return [*texts([request, response]), *nodes([label])]

    async def _turns(self, ctx: Context, start: int, stop: int, step: int = 1) -> Any:
        turns = await ctx.turns[start:stop:step]
        return [[*texts([request, response]), *nodes([label])] for request, label, response in turns]

    async def _last(self, ctx: Context, number: int) -> Any:
        return [texts([request]) for request, _, _ in await ctx.turns[-number:]]

    async def _request(self, ctx: Context, number: int) -> Any:
        request = await ctx.requests[number]
        return [request.text, request.misc]

    async def _requests(self, ctx: Context, start: int, stop: int, step: int = 1) -> Any:
        return texts(await ctx.requests[start:stop:step])

    async def _some(self, ctx: Context, *numbers: int) -> Any:
        return [
            texts(await ctx.requests.get(numbers)),
            texts(await ctx.responses.get(numbers)),
            nodes(await ctx.labels.get(numbers)),
        ]

    async def _maybe(self, ctx: Context, number: int) -> Any:
        return texts([await ctx.responses.get(number)])

    async def _labels(self, ctx: Context) -> Any:
        return [[number, label.node_name] for number, label in await ctx.labels.items()]

    async def _responses(self, ctx: Context) -> Any:
        return [[number, response.text] for number, response in await ctx.responses.items()][-4:]

    async def _all(self, ctx: Context) -> Any:
        return sum(request.misc["number"] for request in await ctx.requests.values())

    async def _keys(self, ctx: Context) -> Any:
        return [ctx.requests.keys(), ctx.responses.keys(), ctx.labels.keys(), list(ctx.labels)]

    async def _sizes(self, ctx: Context) -> Any:
        return [
            len(ctx.requests),
            len(ctx.responses),
            len(ctx.labels),
            0 in ctx.labels,
            0 in ctx.requests,
            1 in ctx.responses,
        ]

    async def _default(self, ctx: Context, number: int) -> Any:
        return texts([await ctx.requests.get(number, await ctx.requests[1])])

    async def _pick(self, ctx: Context, number: int) -> Any:
        label = await ctx.labels[number]
        return [label.flow_name, label.node_name, (await ctx.labels.setdefault(number)).node_name]


class Repeat(BaseResponse):
    """The first response of the dialog, whole."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return (await ctx.responses[1]).model_copy(update={"annotations": {"repeated_at": ctx.current_turn_id}})


pipeline = Pipeline(
    script={
        GLOBAL: {
            PRE_TRANSITION: {"number": Number()},
            TRANSITIONS: [
                Tr(dst=("story", "repeat"), cnd=cnd.ExactMatch("repeat")),
                Tr(dst=dst.FromHistory(position=-15), cnd=cnd.ExactMatch("long ago"), priority=2),
                Tr(dst=("story", "ask"), cnd=cnd.Regexp(r"^[a-z]+( -?\d+)*$"), priority=0.5),
                Tr(
                    dst=("story", "seen"),
                    cnd=cnd.All(
                        cnd.HasText("Seen"), cnd.CheckLastLabels(labels=[("story", "repeat")], last_n_indices=9)
                    ),
                ),
            ],
        },
        "story": {
            "start": {},
            "ask": {RESPONSE: Ask()},
            "repeat": {RESPONSE: Repeat()},
            "seen": {RESPONSE: "You have."},
            "told": {RESPONSE: "Once upon a time."},
        },
    },
    start_label=("story", "start"),
    fallback_label=("story", "told"),
    context_storage=MemoryContextStorage(partial_read_config={"labels": 1, "requests": 1, "responses": {1, 3}}),
)

DIALOGS: Dialogs = {
    "long": [
        "Tell", "keys", "turn 0", "turn 1", "repeat", "turn -3", "request 1", "requests 1 5", "turns 0 4", "all",
        "labels",
        "some 1 5 9 99", "Seen", "maybe 2", "sizes", "last 12", "long ago", "responses", "turns 1 18 4", "default 77",
        "request 3", "pick 5", "requests 20 4 -5", "all", "keys", "turn -26", "turn 99", "request 99",
        "requests 20 40",
        "Seen", "long ago", "sizes",
    ],
    "eager": [
        "all", "turn 1", "turn 0", "sizes", "maybe 1", "last 99", "some", "pick 0", "repeat", "turns 0 0", "labels",
    ],
    "careless": [
        "request", "turn x", "Seen", "unknown 1", "Repeat", "repeat", "Seen", "pick 40", "responses", "long ago",
    ],
}  # fmt: skip
