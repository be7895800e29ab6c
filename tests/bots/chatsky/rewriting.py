"""An editor: changes, replaces and deletes older turns, one that was never loaded among them, and stores in between."""

# mypy: allow-subclassing-any

from typing import Any

from chatsky import (
    GLOBAL,
    RESPONSE,
    TRANSITIONS,
    BaseProcessing,
    BaseResponse,
    Context,
    Message,
    MessageInitTypes,
    Pipeline,
)
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import destinations as dst
from chatsky.context_storages import MemoryContextStorage

from tests.bots.chatsky import Dialogs


class Edit(BaseProcessing):
    """Carries out `WHAT ARGUMENTS` after the response is made. An error is noted; what was done before it stays."""

    async def call(self, ctx: Context) -> None:
        what, *arguments = (ctx.last_request.text or "").split()
        edit = getattr(self, f"_{what}", None)
        if edit is None:
            return
        try:
            await edit(ctx, *map(int, arguments))
        except (KeyError, TypeError, ValueError) as error:
            ctx.misc.setdefault("errors", []).append(f"{what}: {type(error).__name__} {error}")

    async def _touch(self, ctx: Context, number: int) -> None:
        """In place: kept only because the storage rewrites what exists."""
        request = await ctx.requests[number]
        request.annotations = {**(request.annotations or {}), f"touched at {ctx.current_turn_id}": True}

    async def _censor(self, ctx: Context, number: int) -> None:
        (await ctx.responses[number]).text = "***"

    async def _replace(self, ctx: Context, number: int) -> None:
        ctx.requests[number] = Message(f"replaced at {ctx.current_turn_id}", misc={"was": number})

    async def _swap(self, ctx: Context, one: int, other: int) -> None:
        ctx.responses[one], ctx.responses[other] = await ctx.responses[other], await ctx.responses[one]

    async def _several(self, ctx: Context, start: int, stop: int) -> None:
        ctx.responses[start:stop] = [Message(f"several {number}") for number in range(start, stop)]

    async def _move(self, ctx: Context, number: int) -> None:
        ctx.labels[number] = ("desk", "moved")

    async def _delete(self, ctx: Context, number: int) -> None:
        await ctx.requests[number]
        del ctx.requests[number]

    async def _blind(self, ctx: Context, number: int) -> None:
        """Delete what may not be loaded."""
        del ctx.responses[number]

    async def _pop(self, ctx: Context, number: int) -> None:
        popped = await ctx.requests.pop(number)
        ctx.misc["popped"] = popped.model_dump(mode="json") if popped else None

    async def _undo(self, ctx: Context) -> None:
        """The dialog stays where it was: this turn leaves no label."""
        del ctx.labels[ctx.current_turn_id]

    async def _unsay(self, ctx: Context) -> None:
        """This turn leaves no response: the last one is an earlier one's."""
        del ctx.responses[ctx.current_turn_id]

    async def _clear(self, ctx: Context) -> None:
        await ctx.responses.values()
        ctx.responses.clear()

    async def _update(self, ctx: Context, number: int) -> None:
        await ctx.responses.update({number: Message("updated"), ctx.current_turn_id: Message("and now")})

    async def _default(self, ctx: Context, number: int) -> None:
        ctx.misc["default"] = (await ctx.requests.setdefault(number, Message("a default"))).text

    async def _save(self, ctx: Context) -> None:
        """Stores before the turn is over, and goes on."""
        ctx.misc["saved"] = ctx.misc.get("saved", 0) + 1
        await ctx.store()
        ctx.last_response.text = f"{ctx.last_response.text} (saved)"
        ctx.misc["after"] = ctx.current_turn_id

    async def _restore(self, ctx: Context, number: int) -> None:
        """Delete, store, and put back."""
        request = await ctx.requests[number]
        del ctx.requests[number]
        await ctx.store()
        ctx.requests[number] = request


class Show(BaseResponse):
    """The whole dialog as it is stored now."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        shown: dict[str, Any] = {
            "requests": [[n, m.text, m.annotations] for n, m in await ctx.requests.items()],
            "responses": [[n, m.text] for n, m in await ctx.responses.items()][-20:],
            "labels": [[n, label.node_name] for n, label in await ctx.labels.items()],
        }
        return {"text": f"{len(ctx.requests)}/{len(ctx.responses)}/{len(ctx.labels)}", "misc": shown}


class Before(BaseResponse):
    """What the last response was before this turn, wherever it is."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return f"last: {ctx.last_response.text if ctx.last_response else None}"


pipeline = Pipeline(
    script={
        GLOBAL: {
            TRANSITIONS: [
                Tr(dst=("desk", "show"), cnd=cnd.ExactMatch("show"), priority=2),
                Tr(dst=("desk", "before"), cnd=cnd.ExactMatch("before"), priority=2),
                Tr(dst=dst.Previous(), cnd=cnd.ExactMatch("previous"), priority=2),
                Tr(dst=dst.Forward(loop=True)),
            ]
        },
        "desk": {
            "first": {RESPONSE: "first"},
            "second": {RESPONSE: "second"},
            "third": {RESPONSE: "third"},
            "show": {RESPONSE: Show()},
            "before": {RESPONSE: Before()},
            "moved": {RESPONSE: "moved"},
        },
    },
    post_services=[Edit()],
    start_label=("desk", "first"),
    context_storage=MemoryContextStorage(
        rewrite_existing=True, partial_read_config={"labels": 2, "requests": 1, "responses": 1}
    ),
)

DIALOGS: Dialogs = {
    "editor": [
        "one", "two", "touch 1", "show", "censor 2", "show", "replace 1", "swap 2 3", "several 1 4", "show", "move 2",
        "delete 2", "show", "pop 3", "pop 3", "pop 99", "blind 1", "show", "touch 2", "update 5", "default 4",
        "default 2",
        "save", "show", "restore 1", "show", "touch 1", "save", "previous", "show",
    ],
    "undoer": [
        "one", "undo", "undo", "undo", "undo", "undo", "undo", "undo", "undo", "undo", "previous", "before",
        "unsay", "unsay",
        "unsay", "unsay", "unsay", "unsay", "unsay", "before", "show", "undo", "previous", "show",
    ],
    "cleaner": [
        "one", "two", "clear", "before", "show", "three", "clear", "unsay", "before", "clear", "show", "move 0",
        "show",
    ],
    "saver": ["save", "save", "restore 1", "show", "blind 9", "blind 1", "show", "delete 3", "save", "show"],
}  # fmt: skip
