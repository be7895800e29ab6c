"""A language tutor: requests are annotated before the transition is chosen; processing runs in parallel."""

# mypy: allow-subclassing-any

from chatsky import (
    GLOBAL,
    PRE_RESPONSE,
    PRE_TRANSITION,
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
from chatsky import destinations as dst

from tests.bots.chatsky import Dialogs


class Annotate(BaseProcessing):
    """Puts what it finds in the request into the request's annotations, which are kept with the dialog."""

    async def call(self, ctx: Context) -> None:
        request = ctx.last_request
        words = (request.text or "").split()
        request.annotations = {
            **(request.annotations or {}),
            "words": len(words),
            "longest": max(words, key=len, default=None),
        }


class Correct(BaseProcessing):
    """Replaces the running request by a corrected copy."""

    async def call(self, ctx: Context) -> None:
        if "teh" in (ctx.last_request.text or ""):
            corrected = ctx.last_request.model_copy(update={"text": ctx.last_request.text.replace("teh", "the")})
            corrected.misc = {**(corrected.misc or {}), "said": ctx.last_request.text}
            ctx.requests[ctx.current_turn_id] = corrected


class Remember(BaseProcessing):
    """Keeps the text of the node that is being left and the label, as JSON."""

    async def call(self, ctx: Context) -> None:
        left = ctx.current_node.response
        text = (await left(ctx)).text if left is not None else None
        ctx.misc["left"] = {"text": text, "label": list(ctx.last_label.model_dump().values())}


class Teach(BaseResponse):
    """Answers from the annotations of this request and of the one before it."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        before, now = await ctx.requests.get((ctx.current_turn_id - 1, ctx.current_turn_id))
        grown = now.annotations["words"] - (before.annotations["words"] if before else 0)
        return {
            "text": f"{now.annotations['longest']} ({grown:+})",
            "annotations": now.annotations,
            "misc": ctx.misc["left"],
        }


class AtLeast(BaseCondition):
    """Whether the request has so many words, by its annotations."""

    words: int

    async def call(self, ctx: Context) -> bool:
        return bool(ctx.last_request.annotations["words"] >= self.words)


class Quote(BaseResponse):
    """All that was corrected in the dialog, with what was said."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        said = [f"{r.misc['said']} -> {r.text}" for r in await ctx.requests.values() if r.misc and "said" in r.misc]
        return "; ".join(said) or "no mistakes"


class Praise(BaseProcessing):
    """Runs beside the others before the response; its own key, so that the order does not matter."""

    async def call(self, ctx: Context) -> None:
        ctx.misc["praised"] = ctx.misc.get("praised", 0) + ctx.last_request.annotations["words"]


pipeline = Pipeline(
    script={
        GLOBAL: {
            PRE_TRANSITION: {"correct": Correct(), "annotate": Annotate(), "remember": Remember()},
            PRE_RESPONSE: {"praise": Praise()},
            TRANSITIONS: [
                Tr(dst=("lesson", "mistakes"), cnd=cnd.ExactMatch("mistakes")),
                Tr(dst=("lesson", "long"), cnd=AtLeast(words=5), priority=2),
                Tr(dst=("lesson", "short"), cnd=AtLeast(words=1), priority=0.5),
                Tr(dst=dst.Previous(), cnd=cnd.ExactMatch({"misc": {"key": "undo"}}), priority=3),
            ],
        },
        "lesson": {
            "start": {RESPONSE: "Welcome."},
            "short": {RESPONSE: Teach()},
            "long": {RESPONSE: Teach()},
            "mistakes": {RESPONSE: Quote(), PRE_TRANSITION: {"remember": Annotate()}},
            "empty": {RESPONSE: "Say something."},
        },
    },
    start_label=("lesson", "start"),
    fallback_label=("lesson", "empty"),
    parallelize_processing=True,
)

DIALOGS: Dialogs = {
    "pupil": [
        "hello", "this is teh first sentence", "mistakes", "and one", "teh second", "", "mistakes", "mistakes",
        {"text": "where is teh error in this one", "misc": {"level": 2}, "annotations": {"voice": 0.5}}, "mistakes",
        {"text": "x", "misc": {"key": "undo"}}, {"text": "y", "misc": {"key": "undo"}}, "eins zwei drei vier fünf",
        "teh teh", "mistakes",
    ],
    "mute": [{}, {"text": ""}, {"text": None, "misc": {"key": "undo"}}, "a", {}, "mistakes"],
    "eager": ["a b c d e f", "a b c d e", "a b", "teh", "mistakes", "a", "mistakes"],
}  # fmt: skip
