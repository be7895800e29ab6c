"""Places for the bot: who gets one, when, and what those have of each other who get it from one another."""

import asyncio
import sys
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from interfaces.eager_tasks import begin_task
from interfaces.foreign import StrayCancellationError
from worker import bot_runs
from worker.bot_runs import BotRuns, Run
from worker.places import Places

CAN_BEGIN_AT_ONCE = sys.version_info >= (3, 12)
SAID: ContextVar[str] = ContextVar("SAID", default="nothing")


def test_places_go_to_those_who_asked_first_and_no_more_at_a_time_than_there_are() -> None:
    places, begun = Places(2), list[int]()

    def start(number: int, *, at_once: bool) -> bool:
        begun.append(number)
        return True

    for number in range(5):
        places.line_up(partial(start, number))
    assert begun == [0, 1]
    places.give_back()
    assert begun == [0, 1, 2]
    places.give_back()
    places.give_back()
    assert begun == [0, 1, 2, 3, 4]


def test_who_leaves_the_line_gets_none_and_who_has_one_is_not_in_it() -> None:
    places, begun = Places(1), list[str]()

    def start(*, at_once: bool) -> bool:
        begun.append("start")
        return True

    def other(*, at_once: bool) -> bool:
        begun.append("other")
        return True

    places.line_up(other)
    places.line_up(start)
    places.leave_line(start)
    places.leave_line(other)
    places.give_back()
    assert begun == ["other"]


def test_a_place_that_its_next_one_does_not_take_goes_to_the_one_after_it() -> None:
    places, asked = Places(1), list[bool]()

    def start(*, at_once: bool) -> bool:
        asked.append(at_once)
        return len(asked) == 3

    for _ in range(4):
        places.line_up(start)
    assert asked == [True, True, True]
    places.give_back()
    assert len(asked) == 4


def test_what_ends_while_it_begins_hands_its_place_to_one_that_begins_later() -> None:
    places, begun = Places(1), list[bool]()

    def start(*, at_once: bool) -> bool:
        begun.append(at_once)
        if len(begun) < 3:
            places.give_back()
        return True

    for _ in range(3):
        places.line_up(start)
    assert begun == [True, True, True]
    begun.clear()
    for _ in range(3):
        places._waiting.append(start)
    places.give_back()
    assert begun == [True, False, False]


async def test_a_place_is_handed_on_in_the_step_in_which_it_becomes_free() -> None:
    runs, gate, events = BotRuns(5, 1, 1), asyncio.Event(), list[str]()

    async def first(run: Run) -> None:
        await gate.wait()
        asyncio.get_running_loop().call_soon(events.append, "tick")
        events.append("first ends")

    async def second(run: Run) -> None:
        events.append("second begins")

    both = asyncio.gather(runs.run("first", first), runs.run("second", second))
    await asyncio.sleep(0)
    gate.set()
    await both
    tick_and_begin = ["second begins", "tick"] if CAN_BEGIN_AT_ONCE else ["tick", "second begins"]
    assert events == ["first ends", *tick_and_begin]


async def test_a_run_has_the_context_and_the_task_of_nobody_else() -> None:
    """Although it may begin in the last step of another one."""
    runs, seen = BotRuns(5, 1, 1), list[tuple[str, asyncio.Task[object] | None]]()

    async def bot(run: Run) -> None:
        seen.append((SAID.get(), asyncio.current_task()))
        SAID.set(f"{SAID.get()}, changed")
        await asyncio.sleep(0)

    async def turn(said: str) -> None:
        SAID.set(said)
        await runs.run(said, bot)
        assert SAID.get() == said

    await asyncio.gather(*(turn(str(number)) for number in range(4)))
    assert [said for said, _ in seen] == ["0", "1", "2", "3"]
    assert len({task for _, task in seen}) == 4


async def test_bots_that_never_wait_do_not_run_in_each_other_and_let_others_run() -> None:
    runs, depths, ticks = BotRuns(5, 2, 1), list[int](), 0

    async def bot(run: Run) -> None:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        depths.append(depth)

    async def others() -> None:
        nonlocal ticks
        while len(depths) < 1000:
            ticks += 1
            await asyncio.sleep(0)

    gate = asyncio.Event()
    held = [asyncio.create_task(runs.run("holds a place", lambda _: gate.wait())) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(runs.run("waits", bot)) for _ in range(1000)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*held, *waiting, others())
    assert max(depths) - min(depths) < 20
    assert ticks > 200


async def test_a_run_that_is_cancelled_in_the_tick_in_which_its_place_becomes_free_never_begins() -> None:
    runs, gate, begun = BotRuns(5, 1, 1), asyncio.Event(), list[str]()

    async def bot(run: Run) -> None:
        begun.append(SAID.get())

    async def turn(said: str) -> None:
        SAID.set(said)
        await runs.run(said, bot)

    holding = asyncio.create_task(runs.run("holds the only place", lambda _: gate.wait()))
    await asyncio.sleep(0)
    cancelled, following = asyncio.create_task(turn("cancelled")), asyncio.create_task(turn("following"))
    await asyncio.sleep(0)
    gate.set()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.gather(holding, following)
    assert begun == ["following"]


async def test_a_task_that_somebody_else_cancels_before_its_first_step_keeps_no_place() -> None:
    runs = BotRuns(5, 1, 1)

    async def bot(run: Run) -> str:
        return "answer"

    def cancel_before_the_first_step(*arguments: Any, **more: Any) -> "asyncio.Task[Any]":
        task = begin_task(*arguments, **(more | {"at_once": False}))
        task.cancel()
        return task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bot_runs, "begin_task", cancel_before_the_first_step)
        with pytest.raises(StrayCancellationError):
            await runs.run("cancelled", bot)
    async with asyncio.timeout(5):
        assert await runs.run("next", bot) == "answer"
