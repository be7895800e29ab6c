"""Turns that fail, on the memory store: when they run again, when no more, and beside whom."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Hashable
from typing import Any

import pytest

from interfaces.bot_signals import Reject, Retry
from interfaces.context import Context
from interfaces.errors import Reason, RequestRejected, TurnAbandoned
from interfaces.messages import Message
from tests.unit.test_turns import Bench, echo, reply_of
from worker.isolation import ENDS_IN_COMPANY
from worker.settings import Settings
from worker.stores import Loaded


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for runner in bench.runners:
        runner.close()


async def test_retry_runs_again_outside_the_attempts_and_honours_after(bench: Bench) -> None:
    began: list[float] = []
    loop = asyncio.get_running_loop()

    async def limited(ctx: Context) -> str:
        began.append(loop.time())
        if len(began) <= 2 * bench.settings.attempts:
            raise Retry(after=0.03, reason="429")
        return "done"

    context = await bench.turn(bench.runner(limited), "hello", "r1")
    assert reply_of(context)["message"] == {"text": "done"}
    assert min(later - earlier for earlier, later in itertools.pairwise(began)) >= 0.03


@pytest.mark.parametrize("after", [0.02, 3600.0])
async def test_retry_is_bounded_by_a_total_time(bench: Bench, after: float) -> None:
    bench.settings = Settings(retry_wait=0, retry_for=0.1)

    async def limited(ctx: Context) -> str:
        raise Retry(after=after, reason="quota of account 7")

    async with asyncio.timeout(5):
        with pytest.raises(RequestRejected) as rejected:
            await bench.turn(bench.runner(limited), "hello", "r1")
    assert rejected.value.reason is Reason.HANDLER_FAILED
    assert "account 7" not in rejected.value.detail
    assert "account 7" in (rejected.value.internal or "")
    assert (rejected.value.attempts > 1) == (after < 1)


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_reject_gives_the_request_up_at_once_with_the_bots_words(bench: Bench, is_plain: bool) -> None:
    runs = 0

    def refuse(ctx: Context) -> str:
        nonlocal runs
        runs += 1
        try:
            raise Reject("no pizza on Mondays \ud800")
        except Exception:  # noqa: BLE001 - a careless bot
            return "swallowed"

    async def refuse_async(ctx: Context) -> str:
        return refuse(ctx)

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(refuse if is_plain else refuse_async), "hello", "r1")
    assert (rejected.value.reason, runs) == (Reason.REJECTED, 1)
    assert rejected.value.detail == "no pizza on Mondays \\ud800"


async def test_a_pipeline_runner_may_raise_both_signals(bench: Bench) -> None:
    signals: list[BaseException] = [Retry(after=0), Reject("enough")]

    async def runner(message: Message, ctx_id: Hashable = None, update_ctx_misc: Any = None) -> Context:
        raise signals.pop(0)

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(runner), "hello", "r1")
    assert (rejected.value.reason, rejected.value.attempts) == (Reason.REJECTED, 2)


async def test_an_error_that_cannot_even_be_shown_is_a_failure_like_any_other(bench: Bench) -> None:
    class Hostile(Exception):
        def __repr__(self) -> str:
            raise ValueError("no")

        __str__ = __repr__

    async def bot(ctx: Context) -> str:
        raise Hostile

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(bot), "hello", "r1")
    assert rejected.value.reason is Reason.HANDLER_FAILED


async def test_an_overdue_turn_is_cancelled_and_tried_again_and_then_has_its_own_reason(bench: Bench) -> None:
    bench.settings = Settings(retry_wait=0, turn_timeout=0.02)
    cancelled = 0

    async def slow(ctx: Context) -> str:
        nonlocal cancelled
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return "late"

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(slow), "hello", "r1")
    assert rejected.value.reason is Reason.TURN_TIMEOUT
    assert (rejected.value.attempts, cancelled) == (bench.settings.attempts, bench.settings.attempts)


async def test_what_an_overdue_thread_does_later_changes_nothing(bench: Bench) -> None:
    bench.settings = Settings(retry_wait=0, turn_timeout=0.05)
    release, ended = threading.Event(), threading.Event()

    def hangs_once(ctx: Context) -> str:
        if not ctx.misc.get("again") and not release.is_set():
            ctx.misc["by"] = "the one left behind"
            release.set()
            ended.wait(5)
            ctx.misc["again"] = True
            return "too late"
        return "in time"

    context = await bench.turn(bench.runner(hangs_once), "hello", "r1")
    ended.set()
    assert reply_of(context)["message"] == {"text": "in time"}
    assert (await bench.stored()).version == 1
    assert await bench.misc() == {}


async def test_a_suspect_runs_alone_and_others_wait_for_its_end(bench: Bench) -> None:
    running: set[str] = set()
    together: set[frozenset[str]] = set()

    async def bot(ctx: Context) -> str:
        running.add(ctx.id)
        for _ in range(5):
            together.add(frozenset(running))
            await asyncio.sleep(0.001)
        running.discard(ctx.id)
        return ctx.id

    runner = bench.runner(bot)
    names = [f"context {number}" for number in range(20)]
    suspects = names[5:15:3]
    for name in suspects:
        await bench.crashed(f"request of {name}", ctx_id=name)
    async with asyncio.timeout(10):
        await asyncio.gather(*(bench.turn(runner, "hi", f"request of {name}", ctx_id=name) for name in names))
    for name in suspects:
        assert {group for group in together if name in group} == {frozenset({name})}
    assert max(len(group) for group in together) > 1


async def test_one_end_of_a_process_is_everyday_and_all_go_on_side_by_side(bench: Bench) -> None:
    names = [f"context {number}" for number in range(20)]
    for name in names:
        await bench.store.load(name, f"request of {name}", epoch=0, attempt="crashed", history=1, counted=2)
    begun = 0
    all_begun = asyncio.Event()

    async def bot(ctx: Context) -> str:
        nonlocal begun
        begun += 1
        if begun == len(names):
            all_begun.set()
        await all_begun.wait()
        return ctx.id

    runner = bench.runner(bot)
    async with asyncio.timeout(10):
        await asyncio.gather(*(bench.turn(runner, "hi", f"request of {name}", ctx_id=name) for name in names))


async def test_a_suspect_that_fails_is_still_a_suspect_and_its_start_is_no_crash(bench: Bench) -> None:
    starts: list[int] = []

    async def flaky(ctx: Context) -> str:
        if len(starts) < 2:
            starts.append(0)
            raise ValueError("not yet")
        return "done"

    await bench.crashed("r1")
    load = bench.store.load

    async def noting(*args: Any, **more: Any) -> Loaded:
        loaded = await load(*args, **more)
        if more["counted"] > ENDS_IN_COMPANY:
            starts[-1:] = [*starts[-1:], loaded.starts]
        return loaded

    bench.store.load = noting  # type: ignore[method-assign]  # what each load says
    context = await bench.turn(bench.runner(flaky), "hello", "r1")
    assert reply_of(context)["status"] == "ok"
    assert {number for number in starts if number} == {3}


async def test_turns_in_company_condemn_nobody_however_often_their_process_ends(bench: Bench) -> None:
    for crash in range(10):
        attempt = f"crashed {crash}"
        await bench.store.load("ctx", "r1", epoch=0, attempt=attempt, history=1, counted=ENDS_IN_COMPANY)
    assert reply_of(await bench.turn(bench.runner(echo), "hello", "r1"))["status"] == "ok"


async def test_a_turn_given_up_at_the_end_of_its_worker_is_no_suspect(bench: Bench) -> None:
    started = asyncio.Event()

    async def slow(ctx: Context) -> str:
        started.set()
        await asyncio.sleep(600)
        return ""

    turn = asyncio.create_task(bench.turn(bench.runner(slow), "hello", "r1"))
    await started.wait()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    assert (await bench.store.load("ctx", "r1", epoch=10**18, attempt="next", history=1)).starts == 1


async def test_a_suspect_is_not_condemned_beside_what_is_left_behind_of_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = bench.runner(echo)
    monkeypatch.setattr(type(runner.runs), "left_behind", 1)
    await bench.crashed("r1")
    loads: list[int] = []
    load = bench.store.load

    async def noting(*args: Any, **more: Any) -> Loaded:
        loads.append(more["counted"])
        return await load(*args, **more)

    bench.store.load = noting  # type: ignore[method-assign]  # what each load says
    await bench.turn(runner, "hello", "r1")
    assert loads == [ENDS_IN_COMPANY, ENDS_IN_COMPANY]


async def test_a_suspect_whose_channel_is_lost_while_it_waits_is_given_up_uncounted(bench: Bench) -> None:
    begun, release, runs = asyncio.Event(), asyncio.Event(), 0

    async def bot(ctx: Context) -> str:
        nonlocal runs
        runs += 1
        begun.set()
        await release.wait()
        return "done"

    runner = bench.runner(bot)
    first = asyncio.create_task(bench.turn(runner, "hi", "r0", ctx_id="another"))
    await begun.wait()
    await bench.crashed("r1")
    suspect = asyncio.create_task(bench.turn(runner, "hi", "r1"))
    for _ in range(20):  # until it waits for the other one to end
        await asyncio.sleep(0)
    bench.channel.is_open = False
    release.set()
    await first
    with pytest.raises(TurnAbandoned):
        await suspect
    assert runs == 1
    assert (await bench.store.load("ctx", "r1", epoch=10**18, attempt="next", history=1)).starts == ENDS_IN_COMPANY + 1
