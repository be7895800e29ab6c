"""Runs of the bot that take too long, do not end, or end in ways that no exception should."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from tenacity import wait_none

from interfaces.blocking import run_in_daemon_thread
from interfaces.bot_signals import Reject, Retry
from interfaces.errors import BotStuck, StoreUnavailable, TurnAbandoned
from interfaces.foreign import StrayCancellationError
from worker import bot_runs
from worker.bot_runs import BotExited, BotRuns, Run, TurnOverdue, store_of
from worker.stores import Retention, patience
from worker.stores.memory import MemoryStore
from worker.time_limits import TimeLimits
from worker.turns import _load_turns

SECONDS = 0.05


@pytest.fixture(autouse=True)
def short_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot_runs, "CANCEL_SECONDS", 0.05)


@pytest.fixture
async def release() -> AsyncIterator[threading.Event]:
    """Lets what a test has left behind end."""
    event = threading.Event()
    yield event
    event.set()


async def gone(runs: BotRuns) -> None:
    async with asyncio.timeout(5):
        while runs.left_behind:  # noqa: ASYNC110 - the end of a thread sets no event
            await asyncio.sleep(0.01)


async def deaf(release: threading.Event) -> str:
    """A coroutine that ignores its cancellation."""
    while not release.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue
    return "too late"


async def test_a_run_within_its_time_gives_what_it_returns() -> None:
    async def bot(run: Run) -> str:
        return "answer"

    assert await BotRuns(5, 10, 1).run("bot", bot) == "answer"


async def test_an_overdue_run_is_cancelled_and_may_clean_up() -> None:
    cleaned = False

    async def bot(run: Run) -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            cleaned = True

    runs = BotRuns(SECONDS, 10, 1)
    with pytest.raises(TurnOverdue):
        await runs.run("bot", bot)
    assert cleaned
    assert runs.left_behind == 0


async def test_a_run_that_ignores_its_cancellation_is_left_behind_until_it_ends(
    release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    runs = BotRuns(SECONDS, 10, 2)
    with caplog.at_level(logging.ERROR), pytest.raises(TurnOverdue):
        await runs.run("bot 'ada'", lambda _: deaf(release))
    assert runs.left_behind == 1
    assert "bot 'ada' does not end" in caplog.text
    assert "in deaf" in caplog.text
    release.set()
    await gone(runs)


async def test_a_run_that_is_left_behind_keeps_its_place_no_longer(release: threading.Event) -> None:
    runs = BotRuns(SECONDS, 1, 2)
    places: list[int] = []

    async def bot(run: Run) -> None:
        places.append(len(places))

    first = asyncio.create_task(runs.run("first", lambda _: deaf(release)))
    second = asyncio.create_task(runs.run("second", bot))
    with pytest.raises(TurnOverdue):
        await first
    await asyncio.wait_for(second, 5)
    release.set()
    await gone(runs)
    # The one that ended late has not given back what it did not have any more.
    gate = asyncio.Event()
    holding = asyncio.create_task(runs.run("holds the only place", lambda _: gate.wait()))
    waiting = asyncio.create_task(runs.run("waits", bot))
    for _ in range(10):
        await asyncio.sleep(0)
    assert places == [0]
    gate.set()
    await asyncio.gather(holding, waiting)
    assert places == [0, 1]


async def test_the_time_of_a_run_begins_when_it_has_its_place() -> None:
    runs = BotRuns(SECONDS, 1, 2)

    async def bot(run: Run) -> str:
        await asyncio.sleep(SECONDS * 0.6)
        return "answer"

    assert await asyncio.gather(*(runs.run(f"bot {number}", bot) for number in range(4))) == ["answer"] * 4


async def test_a_run_that_is_cancelled_while_it_waits_for_its_place_never_begins() -> None:
    runs, gate = BotRuns(5, 1, 1), asyncio.Event()
    begun: list[str] = []

    async def bot(run: Run) -> None:
        begun.append("it")

    holding = asyncio.create_task(runs.run("holds the only place", lambda _: gate.wait()))
    waiting = asyncio.create_task(runs.run("waits", bot))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await holding
    assert begun == []
    await runs.run("next", bot)
    assert begun == ["it"]


async def test_a_thread_that_never_returns_is_left_behind_and_the_log_says_where_it_is(
    release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def hang_here() -> None:
        release.wait()

    runs = BotRuns(SECONDS, 10, 2)
    with caplog.at_level(logging.ERROR), pytest.raises(TurnOverdue):
        await runs.run("bot", lambda run: run_in_daemon_thread(hang_here, started=run.thread_started))
    assert runs.left_behind == 1
    assert "in hang_here" in caplog.text
    release.set()
    await gone(runs)


async def test_at_the_bound_of_runs_left_behind_the_process_is_to_end(release: threading.Event) -> None:
    runs = BotRuns(SECONDS, 10, 2)
    watching = asyncio.create_task(runs.watch())
    for number in (1, 2):
        assert not watching.done()
        with pytest.raises(TurnOverdue):
            await runs.run("bot", lambda run: run_in_daemon_thread(release.wait, started=run.thread_started))
        assert runs.left_behind == number
    with pytest.raises(BotStuck):
        await asyncio.wait_for(watching, 5)


async def test_what_is_left_behind_reaches_no_store(release: threading.Event) -> None:
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def bot(run: Run) -> None:
        store = store_of(run, MemoryStore(Retention()))
        await deaf(release)
        try:
            await store.delete("another dialog")
        except TurnAbandoned as error:
            outcome.set_result(error)
        else:
            outcome.set_result(None)

    runs = BotRuns(SECONDS, 10, 2)
    with pytest.raises(TurnOverdue):
        await runs.run("bot", bot)
    release.set()
    assert isinstance(await asyncio.wait_for(outcome, 5), TurnAbandoned)


async def test_a_store_that_is_away_costs_the_bot_none_of_its_time() -> None:
    class Away(MemoryStore):
        async def peek(self, ctx_id: str, history: int) -> None:
            raise StoreUnavailable("away")

    looks = 0

    async def bot(run: Run) -> str:
        nonlocal looks
        store = store_of(run, Away(Retention()))
        while looks < 20:
            looks += 1
            with pytest.raises(StoreUnavailable):
                await store.peek("ctx", 1)
            await asyncio.sleep(SECONDS / 4)
        return "waited"

    assert await BotRuns(SECONDS, 10, 1).run("bot", bot) == "waited"


async def test_a_cancelled_turn_cancels_its_run() -> None:
    cancelled = asyncio.Event()

    async def bot(run: Run) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    turn = asyncio.create_task(BotRuns(600, 10, 1).run("bot", bot))
    await asyncio.sleep(0.01)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert cancelled.is_set()


async def test_a_bot_that_exits_does_not_end_the_process() -> None:
    async def bot(run: Run) -> None:
        raise SystemExit(3)

    with pytest.raises(BotExited):
        await BotRuns(5, 10, 1).run("bot", bot)


async def test_a_run_cancelled_from_within_fails() -> None:
    async def bot(run: Run) -> None:
        raise asyncio.CancelledError

    with pytest.raises(StrayCancellationError):
        await BotRuns(5, 10, 1).run("bot", bot)


@pytest.mark.parametrize("signal", [Retry(after=1), Reject("no")])
async def test_a_signal_out_of_a_task_group_is_that_signal(signal: Retry | Reject) -> None:
    async def bot(run: Run) -> None:
        async def part() -> None:
            raise signal

        async with asyncio.TaskGroup() as group:
            group.create_task(part())

    with pytest.raises(type(signal)) as caught:
        await BotRuns(5, 10, 1).run("bot", bot)
    assert caught.value is signal


async def test_a_load_of_turns_that_waits_for_the_store_ends_when_its_run_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked for again and again while the store is away, and each time anew whether it still may."""
    monkeypatch.setattr(patience, "STORE_WAIT", wait_none())
    run, tried = Run(TimeLimits(5, lambda _: None)), 0

    class Away(MemoryStore):
        async def read_turns(self, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, bytes]:
            nonlocal tried
            tried += 1
            run.is_left = tried >= 3
            raise StoreUnavailable("away")

    with pytest.raises(TurnAbandoned):  # `TimeoutError` where it is tried for ever.
        async with asyncio.timeout(5):
            await _load_turns(run, Away(Retention()), "ada", [1])
    assert tried == 3
