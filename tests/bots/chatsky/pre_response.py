"""A newsroom: what happens between the transition and the response, and how responses are changed there."""

# mypy: allow-subclassing-any

from chatsky import (
    GLOBAL,
    LOCAL,
    PRE_RESPONSE,
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
from chatsky import processing as proc

from tests.bots.chatsky import Dialogs


class Wrap(proc.ModifyResponse):
    """Puts the text of the original response between two words; several wrap each other."""

    before: str
    after: str = ""

    async def modified_response(self, original_response: BaseResponse, ctx: Context) -> MessageInitTypes:
        original = await original_response(ctx)
        return Message(f"{self.before}{original.text}{self.after}", misc={**(original.misc or {}), self.before: 1})


class Shorten(proc.ModifyResponse):
    """Keeps what the reader has set as the length, in the misc of the dialog."""

    async def modified_response(self, original_response: BaseResponse, ctx: Context) -> MessageInitTypes:
        original = await original_response(ctx)
        return str(original.text)[: ctx.misc.get("length", 1000)]


class SetLength(BaseProcessing):
    """Reads the length out of the request."""

    async def call(self, ctx: Context) -> None:
        ctx.misc["length"] = int(ctx.last_request.text.split()[-1])


class Read(BaseProcessing):
    """Notes in the misc what was read, by the label of this turn, which is set already."""

    async def call(self, ctx: Context) -> None:
        label = (await ctx.labels[ctx.current_turn_id]).node_name
        ctx.misc.setdefault("read", []).append(label)


class Broken(BaseProcessing):
    """Raises: the others run all the same."""

    async def call(self, ctx: Context) -> None:
        raise RuntimeError("press stopped")


class Headline(BaseResponse):
    """How often each node was read so far."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        return ",".join(ctx.misc["read"])


class Replace(BaseProcessing):
    """Gives the current node another response for this turn."""

    async def call(self, ctx: Context) -> None:
        if "exclusive" in (ctx.last_request.text or ""):
            ctx.current_node.response = Headline()


sections = [
    Tr(dst=("news", "sport"), cnd=cnd.HasText("sport")),
    Tr(dst=("news", "weather"), cnd=cnd.HasText("weather")),
    Tr(dst=("news", "length"), cnd=cnd.Regexp(r"^length -?\w+$")),
    Tr(dst=("archive", "last"), cnd=cnd.HasText("archive")),
    Tr(dst=dst.Current(), cnd=cnd.HasText("again")),
]

pipeline = Pipeline(
    script={
        GLOBAL: {
            TRANSITIONS: sections,
            PRE_RESPONSE: {
                "read": Read(),
                "broken": Broken(),
                "wrap": Wrap(before="<", after=">"),
                "shorten": Shorten(),
            },
        },
        "news": {
            LOCAL: {PRE_RESPONSE: {"wrap": Wrap(before="News: "), "replace": Replace()}},
            "cover": {},
            "sport": {RESPONSE: "Two to one.", PRE_RESPONSE: {"first": Wrap(before="*", after="*")}},
            "weather": {RESPONSE: Message("Rain.", misc={"mm": 4.0})},
            "length": {RESPONSE: "Done.", PRE_RESPONSE: {"set": SetLength(), "shorten": Broken()}},
            "lost": {PRE_RESPONSE: {"wrap": Wrap(before="?")}},
        },
        "archive": {"last": {RESPONSE: Headline()}},
    },
    start_label=("news", "cover"),
    fallback_label=("news", "lost"),
)

DIALOGS: Dialogs = {
    "reader": [
        "sport", "again", "exclusive sport", "weather", "length 9", "weather", "sport", "archive", "again",
        "length x",
        "archive", "length -3", "sport", "exclusive weather", "length 1000", "archive", "hm",
    ],
    "glancer": ["archive", "archive", "length 3", "archive", "weather", "exclusive", "exclusive again"],
    "nobody": ["hm", "hm", "length 0", "sport"],
}  # fmt: skip
