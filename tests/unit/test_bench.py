"""What the benchmark makes of its measurements: faults, medians, runs that do not count, and the page."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import __main__ as command
from tests.bench import compare, contest, growth, page, results
from tests.bench.compare import Standing
from tests.bench.contest import BARE, ENTRANTS, OURS, Entrant, Report, interleaved, sized, work_for
from tests.bench.latency import RPC
from tests.bench.measure import LONGEST_PAUSE, SHORTEST_PAUSE, Run, pause_after
from tests.bench.pace import Pace
from tests.bench.place import Place
from tests.bench.results import Outcome, Performance, Spread, Step, Tally, Trips
from tests.bench.work import Faults, Work, answer_to, faults, reply_body

WORK = Work(requests=40, contexts=4)
NONE = Faults(0, 0, 0, 0)
MACHINE = {
    "processor": "Z80",
    "cores": "1",
    "python": "3.11",
    "servers": "RabbitMQ 3",
    "libraries": "",
    "frameworks": "",
}


def replies() -> list[bytes]:
    """What a contender without faults answers."""
    counts = dict.fromkeys((ctx_id for ctx_id, _ in WORK), 0)
    bodies = []
    for ctx_id, text in WORK:
        counts[ctx_id] += 1
        bodies.append(reply_body(ctx_id, answer_to(text, counts[ctx_id])))
    return bodies


def run(rate: float = 1000.0, cpu: float = 100.0, others: float = 0.0, found: Faults = NONE) -> Run:
    return Run("somebody", rate, cpu, 50.0, others, found)


def outcome(name: str, *rates: float, cpu: float = 100.0, work: Work = WORK) -> Outcome:
    return Outcome(name, work, [run(rate, cpu) for rate in rates], thrown_out=2, concurrency=10)


def performance() -> Performance:
    steady = [outcome(OURS, 900, 1000, 1300, cpu=300), outcome(BARE, 1900, 2000, 2100), Outcome("Celery", WORK, [], 3)]
    waiting = [outcome(OURS, 80, work=replace(WORK, wait=0.1))]
    grown = [
        Step("dialog", 10, outcome(OURS, 1000, cpu=200), 20, 4_000.0),
        Step("dialog", 100, outcome(OURS, 500, cpu=300), 110, 22_000.0),
    ]
    trips = [Trips({OURS: [6.0] * 10, RPC: [4.0] * 10}, 0.0), Trips({OURS: [8.0] * 10, RPC: [4.0] * 10}, 0.0)]
    return Performance(MACHINE, {"steady": steady, "waiting": waiting}, grown, trips, 1)


def row(text: str, *begins: str) -> list[str]:
    """The cells of the one row that begins so."""
    prefix = f"| {' | '.join(begins)} |"
    (line,) = [line for line in text.splitlines() if line.startswith(prefix)]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_replies_without_a_fault_have_none() -> None:
    assert faults(WORK, replies()) == NONE


def test_a_lost_update_is_found() -> None:
    bodies = replies()
    of_one = [place for place, body in enumerate(bodies) if json.loads(body)["ctx_id"] == "user-0"]
    for place, number in zip(of_one[5:], itertools.count(5)):
        bodies[place] = reply_body("user-0", answer_to(str(number), number))
    assert faults(WORK, bodies) == replace(NONE, lost_updates=1)


def test_a_swap_within_a_context_is_found_and_one_between_contexts_is_none() -> None:
    bodies = replies()
    bodies[0], bodies[1] = bodies[1], bodies[0]
    assert faults(WORK, bodies) == NONE
    bodies[8], bodies[12] = bodies[12], bodies[8]
    assert faults(WORK, bodies).out_of_order == 1


def test_a_missing_reply_and_a_repeated_one_are_found() -> None:
    bodies = replies()
    assert faults(WORK, bodies[:-1]) == replace(NONE, missing=1)
    assert faults(WORK, [*bodies, bodies[7]]) == replace(NONE, repeated=1)


@pytest.mark.parametrize("requests", [1, 7, 40, 1_234, 10_000, 50_000])
def test_less_work_still_has_every_context_alike(requests: int) -> None:
    for work in contest.VARIANTS.values():
        smaller = sized(work, requests)
        assert smaller.requests <= min(requests, work.requests)
        assert len(list(smaller)) == smaller.requests > 0


def test_who_runs_few_handlers_gets_no_more_than_seconds_of_waiting() -> None:
    for entrant in ENTRANTS:
        work = work_for(entrant, contest.VARIANTS["waiting"])
        assert work.requests * work.wait / entrant.concurrency <= contest.WAITING_SECONDS
        assert work_for(entrant, contest.VARIANTS["steady"]).requests <= entrant.at_most


def test_unknown_contenders_are_refused_and_those_without_an_interpreter_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="no contender Nobody"):
        contest.contenders(["Nobody"], print)
    monkeypatch.setattr(contest, "ENTRANTS", (ENTRANTS[0], Entrant("gone", (), 1, "/nowhere/python")))
    said: list[str] = []
    assert contest.contenders([], said.append) == [ENTRANTS[0]]
    assert "gone" in said[0]


def test_what_makes_requests_is_imported_when_needed_and_its_absence_told() -> None:
    assert contest.filler(ENTRANTS[0]) is Place.fill
    with pytest.raises(RuntimeError, match="its requests cannot be made"):
        contest.filler(Entrant("odd", (), 1, fill="tests.bench.nothing:fill"))


def test_disturbed_runs_are_repeated_but_not_for_ever() -> None:
    tally: Tally[Run] = Tally(2)
    assert [tally.add(run(others=others)) for others in (0.5, 0.0, 0.11, 0.1)] == [False, True, False, True]
    assert (tally.is_complete, len(tally.kept), tally.thrown_out) == (True, 2, 2)
    hopeless: Tally[Run] = Tally(2)
    while not hopeless.is_complete:
        hopeless.add(run(others=1.0))
    assert (hopeless.kept, hopeless.thrown_out) == ([], 4)


def test_the_replies_are_looked_at_seldom_and_often_only_at_the_end() -> None:
    assert pause_after(0.1, done=0, left=1000) == SHORTEST_PAUSE  # Nothing is known yet.
    assert pause_after(5.0, done=5000, left=5000) == LONGEST_PAUSE
    assert pause_after(5.0, done=5000, left=500) == pytest.approx(0.125)  # 0.5 s are left.
    assert pause_after(5.0, done=5000, left=1) == SHORTEST_PAUSE


def test_pace_is_what_the_looks_of_a_run_took_on_average() -> None:
    pace = Pace()
    assert pace.microseconds == 0.0
    pace.look()
    once = pace.microseconds
    assert once > 0
    pace.look()
    assert pace.microseconds > once / 2


async def rounds_of(others: dict[str, Iterable[float]], rounds: int) -> tuple[list[str], list[str]]:
    """Who ran, in order, and what was told."""
    ran: list[str] = []
    said: list[str] = []
    disturbances = {name: iter(values) for name, values in others.items()}

    async def once(name: str) -> Run:
        ran.append(name)
        await asyncio.sleep(0)
        if name == "fails":
            raise RuntimeError("no")
        return run(others=next(disturbances[name], 0.0))

    await interleaved(others, rounds, once, Report(said.append))
    return ran, said


async def test_contenders_take_turns_and_only_disturbed_ones_are_repeated() -> None:
    ran, said = await rounds_of({"a": [], "b": [0.5], "fails": []}, 2)
    assert ran == ["a", "b", "fails", "a", "b", "b"]
    assert said == ["b: thrown out, others used 50% of the processors", "fails failed: no"]


def test_a_spread_is_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0, 2.5]) == Spread(2.5, 1.0, 9.0)


def test_the_table_has_medians_ranges_and_shares_of_the_bare_loop() -> None:
    text = page.page(performance())
    nothing = ["0"] * 4
    assert row(text, OURS, "1,000") == [OURS, "1,000", "900 - 1,300", "50.0%", "300", "50", *nothing, "2"]
    assert row(text, BARE) == [BARE, "2,000", "1,900 - 2,100", "100.0%", "100", "50", *nothing, "2"]
    assert row(text, "Celery") == ["Celery", *"-" * 9, "3"]
    assert row(text, OURS, "10", "100")[:6] == [OURS, "10", "100", "80", "80 - 80", "80%"]


def test_growth_is_told_against_its_first_point_and_memory_for_each_turn() -> None:
    text = page.page(performance())
    assert row(text, "turns before", "10")[5:8:2] == ["1.00", "1.00"]
    assert row(text, "turns before", "100")[2:8] == ["1", "500", "500 - 500", "0.50", "300", "1.50"]
    assert row(text, "110") == ["110", "22,000", "200"]


def test_round_trips_are_told_with_their_ratio() -> None:
    text = page.page(performance())
    assert row(text, OURS, "7.00")[1:3] == ["7.00", "6.00 - 8.00"]
    assert row(text, "times")[1:3] == ["1.75", "1.50 - 2.00"]
    assert "20 round trips each in 2 round(s), 1 thrown out" in text


def test_every_table_has_as_many_cells_in_every_row() -> None:
    tables = [
        {line.count("|") for line in table.splitlines() if line.startswith("|")}
        for table in page.page(performance()).split("\n\n")
    ]
    assert len([table for table in tables if table]) == 5
    assert [table for table in tables if len(table) > 1] == []


def test_what_is_written_is_read_back_and_what_was_not_measured_stays(tmp_path: Path) -> None:
    found = performance()
    page.publish(found, tmp_path)
    assert results.read(tmp_path / "performance.json") == found
    assert {path.name for path in tmp_path.iterdir()} >= {"performance.md", *page.NAMED.values()}
    newer = Performance(MACHINE, {"steady": [outcome(OURS, 1)]}).with_rest_of(found)
    assert newer.contests["waiting"] == found.contests["waiting"]
    assert newer.contests["steady"] == [outcome(OURS, 1)]
    assert (newer.growth, newer.latency, newer.latency_thrown_out) == (found.growth, found.latency, 1)


def test_a_comparison_is_by_ratios_to_the_bare_loop() -> None:
    recorded = Standing.of(performance().contests["steady"])
    assert recorded == Standing(rate=0.5, cpu=3.0)
    assert "50.0% recorded, 40.0% now (-20.0%)" in compare.moved(recorded, Standing(0.4, 3.3))
    assert not compare.is_worse(recorded, Standing(0.1, 3.4))
    assert compare.is_worse(recorded, Standing(0.9, 3.5))
    with pytest.raises(ValueError, match=f"not measured: {BARE}"):
        Standing.of([outcome(OURS, 1000)])


def test_a_preloaded_dialog_has_all_its_turns_in_edits_that_follow_one_another() -> None:
    made = list(growth.edits(4_500))
    assert [turn for edit in made for turn in edit.turns] == list(range(1, 4_501))
    assert [(edit.version, edit.revision, edit.new_version) for edit in made] == [
        (0, 0, 2_000),
        (2_000, 1, 4_000),
        (4_000, 2, 4_500),
    ]


def test_the_command_line_says_what_is_measured() -> None:
    console = Console(quiet=True)
    quick = command.plan_of(command.arguments(["--quick", "--contender", OURS]), console)
    assert (quick.sections, quick.rounds, quick.runs) == (command.QUICK_SECTIONS, 1, 2)
    compared = command.plan_of(command.arguments(["--compare"]), console)
    assert ({entrant.name for entrant in compared.entrants}, compared.rounds) == ({OURS, BARE}, 3)
    with pytest.raises(ValueError, match="no section nothing"):
        command.plan_of(command.arguments(["--only", "nothing"]), console)
    longer = command.plan_of(command.arguments(["--only", "growth", "--series", "dialog,contexts"]), console)
    assert (longer.series, longer.runs) == (("dialog", "contexts"), 5 * 9)
    with pytest.raises(ValueError, match="no series nothing"):
        command.plan_of(command.arguments(["--series", "nothing"]), console)


def test_a_comparison_ends_with_what_it_found() -> None:
    console = Console(quiet=True)
    found = performance()
    assert command.judge(Standing(0.5, 3.0), found, console) == 0
    assert command.judge(Standing(0.5, 2.0), found, console) == 1
    found.contests["steady"] = [outcome(OURS, 1000)]
    assert command.judge(Standing(0.5, 3.0), found, console) == 2
