"""Time limits of many by one timer, against a limit for each, in a time that the test sets."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.time_limits import TimeLimits

SECONDS = 10.0


class Loop:
    """An event loop's clock and timers; `pass_` makes what is due happen, in order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        self.timers.append((when, callback))
        return object()

    def pass_(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= until]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    return loop


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "again", "end", "pass"]), st.integers(0, 4), st.integers(0, 12)), max_size=40
)


@given(steps=STEPS)
def test_each_is_told_when_its_own_time_is_over_and_not_after_its_end(steps: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        loop = Loop()
        patch.setattr("asyncio.get_running_loop", lambda: loop)
        over: list[tuple[int, float]] = []
        limits: TimeLimits[int] = TimeLimits(SECONDS, lambda timed: over.append((timed, loop.now)))
        due: dict[int, float] = {}
        expected: list[tuple[int, float]] = []
        for step, timed, seconds in steps:
            if step == "pass":
                ended = [(each, at) for each, at in due.items() if at <= loop.now + seconds]
                expected += sorted(ended, key=lambda each: each[1])
                due = {each: at for each, at in due.items() if at > loop.now + seconds}
                loop.pass_(seconds)
            elif step == "end":
                limits.end(timed)
                due.pop(timed, None)
            elif step == "begin" and timed not in due:
                limits.begin(timed)
                due[timed] = loop.now + SECONDS
            elif step == "again":
                limits.begin_again(timed)
                if timed in due:
                    due[timed] = loop.now + SECONDS
            assert sorted(over) == sorted(expected)
            assert [at for _, at in over] == sorted(at for _, at in over)
            assert limits._due == due
            assert len(loop.timers) <= 1


def test_one_timer_serves_any_number_and_none_is_left_when_all_have_ended(loop: Loop) -> None:
    limits: TimeLimits[int] = TimeLimits(SECONDS, lambda _: None)
    for timed in range(1000):
        limits.begin(timed)
        limits.end(timed)
    assert len(loop.timers) == 1
    loop.pass_(SECONDS)
    assert loop.timers == []


def test_one_that_is_over_is_not_given_its_time_again(loop: Loop) -> None:
    over: list[str] = []
    limits: TimeLimits[str] = TimeLimits(SECONDS, over.append)
    limits.begin("late")
    loop.pass_(SECONDS)
    limits.begin_again("late")
    loop.pass_(2 * SECONDS)
    assert over == ["late"]


def test_on_a_new_loop_there_is_a_new_timer() -> None:
    over: list[str] = []
    limits: TimeLimits[str] = TimeLimits(SECONDS, over.append)
    with pytest.MonkeyPatch.context() as patch:
        for loop in (Loop(), Loop()):
            patch.setattr("asyncio.get_running_loop", lambda loop=loop: loop)
            limits.begin("late")
            limits.end("late")
        limits.begin("late")
        loop.pass_(SECONDS)
    assert over == ["late"]
