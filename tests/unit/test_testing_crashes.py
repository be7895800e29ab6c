"""Crashes in the testing kit: a process that dies at any point of a turn, with bots of each kind."""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import pytest

from interfaces.context import Context
from interfaces.errors import RequestFailed
from interfaces.messages import Message
from interfaces.nested_loops import nested_loops_prevented
from worker.testing import STEPS, Step, run_bot

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields'")  # Chatsky's pipelines do

Bot = Callable[..., Any]


def handler(runs: list[str]) -> Bot:
    async def bot(ctx: Context) -> str:
        await asyncio.sleep(0)
        runs.append(ctx.last_request.text or "")
        ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
        return f"{ctx.misc['turns']}: {ctx.last_request.text}"

    return bot


def plain_function(runs: list[str]) -> Bot:
    def bot(ctx: Context) -> str:
        runs.append(ctx.last_request.text or "")
        ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
        return f"{ctx.misc['turns']}: {ctx.last_request.text}"

    return bot


def pipeline_runner(runs: list[str]) -> Bot:
    async def run(
        message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        await asyncio.sleep(0)
        runs.append(message.text or "")
        turn = int((message.text or "").rpartition(" ")[2])
        return Context(
            id=str(ctx_id),
            current_turn_id=turn,
            requests={turn: message},
            responses={turn: Message(f"{turn}: {message.text}")},
            misc={"turns": turn},
        )

    return run


def chatsky_pipeline(runs: list[str]) -> Any:
    with nested_loops_prevented():
        from chatsky import RESPONSE, TRANSITIONS, BaseResponse, MessageInitTypes, Pipeline
        from chatsky import Context as ChatskyContext
        from chatsky import Transition as Tr

    class Count(BaseResponse):
        async def call(self, ctx: ChatskyContext) -> MessageInitTypes:
            await asyncio.sleep(0)
            runs.append(ctx.last_request.text)
            ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
            return f"{ctx.misc['turns']}: {ctx.last_request.text}"

    counting = {RESPONSE: Count(), TRANSITIONS: [Tr(dst="counting")]}
    script = {"flow": {"start": {TRANSITIONS: [Tr(dst="counting")]}, "counting": counting}}
    return Pipeline(script, start_label=("flow", "start"))


SEEN: dict[Step, dict[Step, int]] = {
    "load": {"load": 1, "run": 1, "commit": 1, "publish": 1, "ack": 1},
    "run": {"load": 2, "run": 1, "commit": 1, "publish": 1, "ack": 1},
    "commit": {"load": 2, "run": 2, "commit": 1, "publish": 1, "ack": 1},
    "publish": {"load": 2, "run": 1, "commit": 1, "publish": 1, "ack": 1},
    "ack": {"load": 2, "run": 1, "commit": 1, "publish": 2, "ack": 1},
}
"""By the step the process dies before: what is done again by the one that takes over, and what is not."""


@pytest.mark.parametrize("make", [handler, plain_function, pipeline_runner, chatsky_pipeline])
@pytest.mark.parametrize("step", STEPS)
async def test_a_turn_happens_once_wherever_its_process_dies(make: Callable[[list[str]], Bot], step: Step) -> None:
    runs: list[str] = []
    async with run_bot(make(runs)) as running:
        ada = running.user("ada")
        await ada.say("turn 1")
        crash = running.crash(before=step)
        replies = [await ada.say("turn 2"), await ada.say("turn 3")]
        context = await ada.context()
    assert crash.happened == 1
    assert replies[0].steps == SEEN[step]
    assert runs == ["turn 1", *["turn 2"] * SEEN[step]["run"], "turn 3"]
    assert [reply.text for reply in replies] == ["2: turn 2", "3: turn 3"]
    assert (context.current_turn_id, context.misc) == (3, {"turns": 3})


@pytest.mark.parametrize("step", STEPS)
async def test_a_process_may_die_again_and_again(step: Step) -> None:
    async with run_bot(handler([])) as running:
        ada = running.user("ada")
        crash = running.crash(before=step, times=2)
        reply = await ada.say("hi")
        assert (await ada.context()).misc == {"turns": 1}
    assert (crash.happened, reply.text) == (2, "1: hi")


async def test_a_turn_that_kills_every_process_is_given_up_as_in_production() -> None:
    async with run_bot(handler([])) as running:
        ada = running.user("ada")
        crash = running.crash(before="commit", times=3)
        with pytest.raises(RequestFailed, match="crashes-worker"):
            await ada.say("hi")
        assert (await ada.context()).current_turn_id == 0
    assert crash.happened == 3


async def test_crashes_before_different_steps_follow_one_another() -> None:
    async with run_bot(handler([])) as running:
        crashes = [running.crash(before=step) for step in STEPS]
        reply = await running.user().say("hi")
    assert [crash.happened for crash in crashes] == [1] * len(STEPS)
    assert reply.text == "1: hi"


async def test_a_crash_meant_for_one_user_waits_for_them() -> None:
    async with run_bot(handler([])) as running:
        ada, bob = running.user("ada"), running.user("bob")
        crash = running.crash(before="run", user=bob)
        assert (await ada.say("hi")).steps["load"] == 1
        assert crash.happened == 0
        assert (await bob.say("hi")).steps["load"] == 2


async def test_everything_that_runs_in_the_process_dies_with_it() -> None:
    runs: list[str] = []
    deaths: list[str] = []
    bob_runs = asyncio.Event()

    async def bot(ctx: Context) -> str:
        runs.append(ctx.id)
        if ctx.id == "bob" and runs.count("bob") == 1:
            bob_runs.set()
            try:
                await asyncio.Event().wait()
            finally:
                deaths.append(ctx.id)
        return f"hello {ctx.id}"

    async with run_bot(bot) as running:
        bob = asyncio.create_task(running.user("bob").say("hi"))
        await bob_runs.wait()
        running.crash(before="commit", user=running.user("ada"))
        ada = await running.user("ada").say("hi")
        replies = [ada, await bob]
    assert [reply.text for reply in replies] == ["hello ada", "hello bob"]
    assert [reply.steps["run"] for reply in replies] == [2, 2]
    assert deaths == ["bob"]


async def test_a_dead_process_that_goes_on_reaches_nothing() -> None:
    """A bot that catches its cancellation and answers all the same does so to nobody."""
    runs: list[int] = []
    zombies: list[int] = []
    waiting = asyncio.Event()

    async def bot(ctx: Context) -> str:
        runs.append(len(runs))
        ctx.misc["run"] = number = runs[-1]
        if number == 0:
            waiting.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            zombies.append(number)
        return f"run {number}"

    async with run_bot(bot) as running:
        ada = running.user("ada")
        saying = asyncio.create_task(ada.say("hi"))
        await waiting.wait()
        await running.kill()
        reply = await saying
        context = await ada.context()
    assert zombies == [0]
    assert (reply.text, reply.steps["run"], reply.turn) == ("run 1", 2, 1)
    assert (context.misc, context.current_turn_id) == ({"run": 1}, 1)


async def test_a_turn_in_a_dead_process_cannot_read_the_store() -> None:
    read: list[bool] = []
    killed = asyncio.Event()
    waiting = asyncio.Event()

    async def bot(ctx: Context) -> str:
        if ctx.last_request.text == "read" and not killed.is_set():
            waiting.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await ctx.turns[1]
            read.append(True)
        return "done"

    async with run_bot(bot, history=1) as running:
        ada = running.user("ada")
        await ada.say("one")
        await ada.say("two")
        saying = asyncio.create_task(ada.say("read"))
        await waiting.wait()
        killed.set()
        await running.kill()
        reply = await saying
    assert (reply.text, reply.turn, read) == ("done", 3, [])


async def test_a_fresh_process_does_not_see_the_variables_of_the_lane_its_predecessor_died_in() -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="fresh")

    async def bot(ctx: Context) -> str:
        seen = variable.get()
        variable.set("used")
        return seen

    async with run_bot(bot) as running:
        running.crash(before="commit")
        reply = await running.user().say("hi")
    assert (reply.text, reply.steps["run"]) == ("fresh", 2)


async def test_a_crash_between_publish_and_ack_publishes_the_same_reply_again() -> None:
    answers = iter(["first", "second"])

    async def bot(ctx: Context) -> str:
        return next(answers)

    async with run_bot(bot) as running:
        running.crash(before="ack")
        reply = await running.user().say("hi")
        assert (await running.user().say("hi")).text == "second"
    assert (reply.text, reply.steps["publish"]) == ("first", 2)
