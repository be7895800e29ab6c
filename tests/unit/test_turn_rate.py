"""Turns in a minute: all that are allowed at once, none more, and one again when its share of the minute has passed."""

import pytest

from interfaces.context import Context
from interfaces.errors import Reason, RequestRejected
from tests.unit.test_turns import Bench, bench, echo, reply_of
from worker import turn_rate
from worker.settings import Settings
from worker.turn_rate import TurnRate

__all__ = ["bench"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("per_minute", [1, 3, 7, 60, 1000])
def test_as_many_as_are_allowed_are_admitted_at_once_and_one_more_after_its_share(per_minute: int) -> None:
    clock = Clock()
    rate = TurnRate(per_minute, clock)
    assert [rate.admits("a") for _ in range(per_minute + 1)] == [True] * per_minute + [False]
    assert rate.admits("b")
    clock.now += 0.99 * 60 / per_minute
    assert not rate.admits("a")
    clock.now += 0.01 * 60 / per_minute
    assert [rate.admits("a"), rate.admits("a")] == [True, False]


def test_without_a_rate_everything_is_admitted_and_nothing_noted() -> None:
    rate = TurnRate(None)
    assert all(rate.admits("a") for _ in range(1000))
    assert len(rate) == 0


def test_contexts_that_have_had_their_minute_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_rate, "SWEEP_AT", 10)
    clock = Clock()
    rate = TurnRate(2, clock)
    for number in range(100):
        rate.admits(f"context {number}")
        clock.now += 10
    assert len(rate) < 10


async def test_a_request_above_the_rate_is_refused_without_a_run_and_a_committed_one_never(bench: Bench) -> None:
    bench.settings = Settings(retry_wait=0, rate=2)
    runs = []

    async def bot(ctx: Context) -> str:
        runs.append(ctx.last_request.text)
        return await echo(ctx)

    runner = bench.runner(bot)
    for number in (1, 2):
        await bench.turn(runner, "hello", f"r{number}")
    with pytest.raises(RequestRejected, match="more than 2 messages in a minute") as caught:
        await bench.turn(runner, "hello", "r3")
    assert caught.value.reason is Reason.RATE_LIMITED
    assert reply_of(await bench.turn(runner, "hello", "r2"))["turn"] == 2
    assert (await bench.stored()).starts == 0
    assert len(runs) == 2
