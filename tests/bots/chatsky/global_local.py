"""An airport: what nodes inherit from local nodes and from the global one (responses, misc, processing)."""

# mypy: allow-subclassing-any

from chatsky import (
    GLOBAL,
    LOCAL,
    MISC,
    PRE_RESPONSE,
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

from tests.bots.chatsky import Dialogs


class Sign(BaseResponse):
    """What the current node says of itself, with what it has inherited."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        node = ctx.current_node
        shown = ", ".join(f"{key}={value}" for key, value in sorted(node.misc.items()))
        steps = ctx.misc.get("steps", 0)
        label, ways = ctx.last_label, len(node.transitions)
        return f"{label.flow_name}/{label.node_name} [{shown}] {ways} ways, {steps} steps"


class Count(BaseProcessing):
    """Counts in the dialog's misc, by a name and the node's own zone."""

    name: str

    async def call(self, ctx: Context) -> None:
        zones = ctx.misc.setdefault("zones", {})
        key = f"{self.name}:{ctx.current_node.misc.get('zone')}"
        zones[key] = zones.get(key, 0) + 1
        ctx.misc["steps"] = ctx.misc.get("steps", 0) + 1


class OpenLounge(BaseProcessing):
    """Changes the current node, which is a copy: the next turn must not see it."""

    async def call(self, ctx: Context) -> None:
        ctx.current_node.misc["lounge"] = f"open at turn {ctx.current_turn_id}"


pipeline = Pipeline(
    script={
        GLOBAL: {
            MISC: {"zone": "public", "language": "en", "smoking": False},
            RESPONSE: Sign(),
            PRE_TRANSITION: {"count": Count(name="leave")},
            PRE_RESPONSE: {"count": Count(name="enter")},
            TRANSITIONS: [
                Tr(dst=("gates", "hall"), cnd=cnd.HasText("gate"), priority=1.1),
                Tr(dst=("arrivals", "belt"), cnd=cnd.HasText("arrive")),
                Tr(dst=dst.Current(), cnd=cnd.HasText("again"), priority=0.2),
                Tr(dst=dst.Forward(), cnd=cnd.All(cnd.HasText("go"), cnd.CheckLastLabels(flow_labels=["gates"]))),
            ],
        },
        "gates": {
            LOCAL: {
                MISC: {"zone": "secure", "gate": "A"},
                PRE_RESPONSE: {"lounge": OpenLounge()},
                TRANSITIONS: [Tr(dst="plane", cnd=cnd.HasText("board")), Tr(dst="hall", cnd=cnd.HasText("gate B"))],
            },
            "hall": {MISC: {"gate": "all"}},
            "lounge": {RESPONSE: "Have a seat."},
            "plane": {
                MISC: {"zone": "air"},
                PRE_RESPONSE: {"count": Count(name="take off")},
                TRANSITIONS: [Tr(dst=("arrivals", "belt"), cnd=cnd.HasText("board"))],
            },
        },
        "arrivals": {
            LOCAL: {RESPONSE: "Welcome.", PRE_TRANSITION: {"count": Count(name="collect")}},
            "belt": {},
            "customs": {RESPONSE: Sign(), MISC: {"smoking": True}},
        },
        "service": {"start": {}, "lost": {RESPONSE: "Ask at the desk.", MISC: {"zone": "desk"}}},
    },
    start_label=("service", "start"),
    fallback_label=("service", "lost"),
)

DIALOGS: Dialogs = {
    "flight": [
        "to the gate", "again", "go", "again", "go", "again", "board", "again", "to gate B", "board", "go", "nothing",
        "again", "arrive", "again", "go", "gate",
    ],
    "wanderer": ["hm", "again", "board", "gate B", "gate B", "board gate", "board", "board", "board", "again", "go"],
    "tired": ["arrive", "again", "again", "arrive at the gate", "again"],
}  # fmt: skip
