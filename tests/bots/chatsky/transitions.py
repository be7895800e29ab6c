"""A tour of a museum: destinations of every kind, priorities, and what happens where no transition can be taken."""

# mypy: allow-subclassing-any

from chatsky import RESPONSE, TRANSITIONS, BaseDestination, BasePriority, Context, NodeLabelInitTypes, Pipeline
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky import destinations as dst

from tests.bots.chatsky import Dialogs


class Room(BaseDestination):
    """The room whose number was said. One that does not exist makes the transition fail."""

    async def call(self, ctx: Context) -> NodeLabelInitTypes:
        return "rooms", f"room_{ctx.last_request.text.split()[-1]}"


class MostVisited(BaseDestination):
    """The room of the whole dialog's labels that occurs most often, the first of those."""

    async def call(self, ctx: Context) -> NodeLabelInitTypes:
        labels = [label for label in await ctx.labels.values() if label.flow_name == "rooms"]
        return max(labels, key=labels.count)


class ByPatience(BasePriority):
    """A number that grows with the dialog, `True` and `None` for the default, `False` for never."""

    async def call(self, ctx: Context) -> float | bool | None:
        kinds: list[float | bool | None] = [0.5, True, None, False, 4.0]
        return kinds[int(ctx.current_turn_id) % len(kinds)]


class Broken(BaseDestination):
    """Raises: the transition cannot be taken."""

    async def call(self, ctx: Context) -> NodeLabelInitTypes:
        raise KeyError(ctx.last_request.text)


tour = [
    Tr(dst=("hall", "nowhere"), cnd=cnd.HasText("nowhere"), priority=5),
    Tr(dst=Broken(), cnd=cnd.HasText("broken"), priority=9),
    Tr(dst=Room(), cnd=cnd.Regexp(r"room \d+")),
    Tr(dst=dst.Forward(), cnd=cnd.ExactMatch("on")),
    Tr(dst=dst.Forward(loop=True), cnd=cnd.ExactMatch("on and on")),
    Tr(dst=dst.Backward(), cnd=cnd.ExactMatch("back")),
    Tr(dst=dst.Backward(loop=True), cnd=cnd.ExactMatch("back and back")),
    Tr(dst=dst.Previous(), cnd=cnd.ExactMatch("previous")),
    Tr(dst=dst.Current(), cnd=cnd.ExactMatch("stay")),
    Tr(dst=dst.FromHistory(position=-5), cnd=cnd.ExactMatch("five ago")),
    Tr(dst=dst.FromHistory(position=-12), cnd=cnd.ExactMatch("twelve ago")),
    Tr(dst=MostVisited(), cnd=cnd.ExactMatch("favourite")),
    Tr(dst=dst.Start(), cnd=cnd.ExactMatch("out")),
    Tr(dst=dst.Fallback(), cnd=cnd.ExactMatch("help")),
    Tr(dst=("hall", "cafe"), cnd=cnd.HasText("coffee"), priority=1.5),
    Tr(dst=("hall", "shop"), cnd=cnd.HasText("coffee"), priority=ByPatience()),
    Tr(dst=("hall", "stairs"), cnd=cnd.HasText("coffee"), priority=1.5),
]


def place(name: str) -> dict[str, object]:
    return {RESPONSE: name, TRANSITIONS: tour}


pipeline = Pipeline(
    script={
        "hall": {
            "door": place("door"),
            "cafe": place("cafe"),
            "shop": place("shop"),
            "stairs": place("stairs"),
            "lost": place("lost"),
        },
        "rooms": {f"room_{number}": place(f"room {number}") for number in range(1, 6)},
        "one_way": {
            "exit": {RESPONSE: "exit", TRANSITIONS: [Tr(dst="gone", cnd=cnd.HasText("on"))]},
            "gone": {RESPONSE: "gone"},
        },
    },
    start_label=("hall", "door"),
    fallback_label=("hall", "lost"),
    default_priority=1.2,
)

DIALOGS: Dialogs = {
    "walker": [
        "room 1", "on", "on", "stay", "previous", "previous", "on", "on and on", "on and on", "five ago", "favourite",
        "back and back", "back", "twelve ago", "previous", "room 2", "room 2", "favourite", "out", "previous",
    ],
    "lost": [
        "back", "nowhere", "broken", "room 9", "help", "stay", "previous", "twelve ago", "five ago", "five ago",
        "favourite", "room 5", "on", "previous", "five ago", "room 4 and room 5", "on and on", "favourite",
    ],
    "thirsty": [
        "coffee", "coffee", "coffee", "coffee", "coffee", "coffee", "previous", "coffee", "coffee", "coffee",
        "coffee",
    ],
}  # fmt: skip
