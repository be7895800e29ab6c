"""A call centre: functions before and after every component, and statistics that are kept over the whole dialog."""

# mypy: allow-subclassing-any

import asyncio

from chatsky import GLOBAL, RESPONSE, TRANSITIONS, BaseResponse, Context, MessageInitTypes, Pipeline
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky.core.service import AfterHandler, BeforeHandler, ExtraHandlerRuntimeInfo, Service, ServiceGroup
from chatsky.core.service.types import ComponentExecutionState, ExtraHandlerType

from tests.bots.chatsky import Dialogs


def count(ctx: Context, info: ExtraHandlerRuntimeInfo) -> None:
    """How often each component was begun and ended, in which state, over all turns."""
    state = ComponentExecutionState(info.component.get_state(ctx)).value
    key = f"{info.stage.value} {info.component.path or '(all)'} {state}"
    ctx.framework_data.stats[key] = ctx.framework_data.stats.get(key, 0) + 1


async def route(ctx: Context) -> None:
    """The last three nodes, with an optional value and a nested one."""
    last = ctx.framework_data.stats.setdefault("route", [])
    last.append({"turn": ctx.current_turn_id, "node": ctx.last_label.node_name, "text": ctx.last_request.text})
    del last[:-3]


async def keep_request(ctx: Context) -> None:
    """A value beside the statistics."""
    ctx.misc["requests"] = ctx.misc.get("requests", 0) + 1


async def endless(ctx: Context) -> None:
    """Too slow for its handler's time limit, so its component fails. It changes nothing, as it may not even begin."""
    await asyncio.Event().wait()


def broken(ctx: Context) -> None:
    """Fails, and its component with it, where it is told to."""
    if "hang up" in (ctx.last_request.text or ""):
        raise ConnectionError("the line is dead")


async def agent(ctx: Context) -> None:
    ctx.misc["agent"] = [ctx.current_turn_id, *ctx.misc.get("agent", [])][:2]


async def supervisor(ctx: Context) -> None:
    ctx.misc["supervised"] = ctx.framework_data.stats.get("BEFORE .actor NOT_RUN", 0)


class Statistics(BaseResponse):
    """What was counted until now, in order of name."""

    async def call(self, ctx: Context) -> MessageInitTypes:
        counts = {key: value for key, value in sorted(ctx.framework_data.stats.items()) if isinstance(value, int)}
        return {"text": f"{sum(counts.values())} events", "misc": {"counts": counts}}


team = ServiceGroup(
    name="team",
    components=[Service(handler=agent, name="agent"), Service(handler=supervisor, name="supervisor")],
    before_handler=BeforeHandler(functions=[count, keep_request], concurrent=True),
)

pipeline = Pipeline(
    script={
        GLOBAL: {
            TRANSITIONS: [
                Tr(dst=("line", "statistics"), cnd=cnd.HasText("statistics")),
                Tr(dst=("line", "no_agent"), cnd=cnd.Not(cnd.ServiceFinished(".pre.team")), priority=0.9),
                Tr(dst=("line", "talk"), priority=0.5),
            ]
        },
        "line": {
            "start": {},
            "statistics": {RESPONSE: Statistics()},
            "no_agent": {RESPONSE: "Nobody is free."},
            "talk": {RESPONSE: "Go on."},
        },
    },
    pre_services=[
        team,
        Service(
            handler=agent,
            name="music",
            start_condition=cnd.HasText("hold"),
            before_handler=BeforeHandler(functions=[endless], timeout=0.02),
        ),
        Service(
            handler=agent,
            name="queue",
            after_handler=AfterHandler(functions=[broken, count]),
        ),
    ],
    post_services=[Service(handler=supervisor, name="survey", after_handler=[count])],
    before_handler=[count],
    after_handler=[count, route],
    start_label=("line", "start"),
)
pipeline.actor.add_extra_handler(ExtraHandlerType.BEFORE, count)
pipeline.actor.add_extra_handler(ExtraHandlerType.AFTER, count)
pipeline.pre_services.add_extra_handler(ExtraHandlerType.AFTER, count, condition=lambda path: "team" in path)

DIALOGS: Dialogs = {
    "caller": [
        "hello", "statistics", "hold", "statistics", "hang up", "statistics", "hold and hang up", "go on", "go on",
        "statistics",
        ("go on", {"requests": 100}), "statistics", "hang up", "hold", "bye", "statistics",
    ],
    "impatient": ["hold", "hang up", "statistics", "hang up"],
    "mute": [{}, {"misc": {"silence": 1}}, "statistics"],
}  # fmt: skip
