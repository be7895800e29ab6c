"""A notebook: what is kept in the misc of the context and of messages, every kind of JSON value among it."""

# mypy: allow-subclassing-any

import json
from typing import Any

from chatsky import (
    GLOBAL,
    PRE_RESPONSE,
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

from tests.bots.chatsky import Dialogs

VALUES: dict[str, Any] = {
    "null": None,
    "booleans": [True, False],
    "integers": [0, -1, 2**53 + 1, -(2**70)],
    "floats": [1.0, -0.0, 0.1, 1e300, 5e-324, 123456789.125],
    "texts": ["", "\x00\x1f\x7f", "äöü 漢字 🙂 \u2028", '"\\/', "__pickled__", "null", "YWJj\n"],
    "empty": [[], {}, [[]], [{}], {"": {}}],
    "keys": {"": 1, " ": 2, "1": 3, "a.b": 4, "$ref": 5, "__class__": 6, "ключ": 7},
    "deep": {"a": [{"b": [{"c": [{"d": {"e": [1, [2, [3, [4]]]]}}]}]}]},
}


class Keep(BaseProcessing):
    """Carries out the command in the request."""

    async def call(self, ctx: Context) -> None:
        command, _, rest = (ctx.last_request.text or "").partition(" ")
        if command == "set":
            key, _, value = rest.partition("=")
            ctx.misc[key] = json.loads(value)
        elif command == "append":
            ctx.misc.setdefault("list", []).append({"turn": ctx.current_turn_id, "text": rest})
        elif command == "nest":
            ctx.misc.setdefault("nested", {}).setdefault(rest, {})[str(ctx.current_turn_id)] = len(ctx.misc)
        elif command == "drop":
            ctx.misc.pop(rest, None)
        elif command == "values":
            ctx.misc["values"] = VALUES
        elif command == "clear":
            ctx.misc.clear()
        elif command == "take":
            ctx.misc["taken"] = [ctx.last_request.misc, ctx.last_request.annotations]


class Show(BaseResponse):
    """The whole misc as text, and again as the misc of the answer."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        text = json.dumps(ctx.misc, ensure_ascii=False)
        return {
            "text": text,
            "misc": {"all": ctx.misc, "size": len(text)},
            "annotations": {"turn": ctx.current_turn_id},
        }


class SameValues(BaseResponse):
    """Whether the values have come back as they were, types included."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return str(json.dumps(ctx.misc.get("values")) == json.dumps(VALUES))


pipeline = Pipeline(
    script={
        GLOBAL: {
            PRE_RESPONSE: {"keep": Keep()},
            TRANSITIONS: [
                Tr(dst=("book", "same"), cnd=cnd.ExactMatch("same?"), priority=2),
                Tr(dst=("book", "page")),
            ],
        },
        "book": {"closed": {}, "page": {RESPONSE: Show()}, "same": {RESPONSE: SameValues()}},
    },
    start_label=("book", "closed"),
)

DIALOGS: Dialogs = {
    "writer": [
        "set a=1", "set a=1.0", 'set b={"a": [true, null]}', "append one", "append two", "nest x", "nest y", "nest x",
        ("hello", {"from": "interface", "n": [1, {"m": None}]}), ("again", {"from": "other"}), "drop b",
        "drop missing",
        "append three", "clear", "append four", ("x", {"list": []}), "append five", "set list=null",
    ],
    "values": ["same?", "values", "same?", "nothing", "same?", "drop values", "same?", "values", "same?"],
    "messages": [
        {"text": "take", "misc": {"values": VALUES}, "annotations": {"score": 0.25}},
        {"text": "take", "misc": {}, "annotations": None},
        {"text": "hello", "extra_field": {"x": [1]}, "origin": {"interface": "kiosk"}},
        {"text": "take"},
        ({"text": "take", "misc": {"a": 1}}, {}),
    ],
}  # fmt: skip
