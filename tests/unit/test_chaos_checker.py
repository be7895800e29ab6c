"""The judge of the chaos suite: a clean run passes, and everything that can be wrong with one is caught."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.checker import FoundContext, FoundTurn, Kind, check
from tests.chaos.history import Confirmed, Event, Recorder, Replied, Sent, read


@dataclass
class Run:
    """The outcome of a run, to be spoiled."""

    events: list[Event] = field(default_factory=list)
    contexts: dict[str, FoundContext] = field(default_factory=dict)

    def kinds(self) -> set[Kind]:
        return {violation.kind for violation in check(self.events, self.contexts)}

    def requests_of(self, ctx_id: str) -> list[str]:
        return [turn.request_id for turn in self.contexts[ctx_id].turns]

    def replace_turns(self, ctx_id: str, request_ids: list[str]) -> None:
        turns = [FoundTurn(number, request_id) for number, request_id in enumerate(request_ids, start=1)]
        self.contexts[ctx_id] = FoundContext(len(turns), len(turns), turns)

    def replies_to(self, request_id: str) -> list[int]:
        return [n for n, e in enumerate(self.events) if isinstance(e, Replied) and e.request_id == request_id]


def reply(ctx_id: str, request_id: str, turn: int, at: int) -> Replied:
    body = {"ctx_id": ctx_id, "request_id": request_id, "turn": turn, "status": "ok", "misc": {"applied": turn}}
    return Replied(request_id, f"reply-{request_id}", json.dumps(body), at)


def clean_run(contexts: int = 2, requests: int = 4, copies: int = 2) -> Run:
    """Requests to several contexts in turn, each confirmed before the next of its context is sent."""
    run = Run()
    for number in range(1, requests + 1):
        for context in range(contexts):
            ctx_id, at = f"c{context}", len(run.events)
            request_id = f"{ctx_id}-{number}"
            run.events += [Sent(request_id, ctx_id, at), Confirmed(request_id, at + 1)]
            run.events += [reply(ctx_id, request_id, number, at + 2 + copy) for copy in range(copies)]
    for context in range(contexts):
        run.replace_turns(f"c{context}", [f"c{context}-{number}" for number in range(1, requests + 1)])
    return run


def lose(run: Run, ctx_id: str, index: int) -> None:
    """A turn is missing, and the numbers hide it."""
    requests = run.requests_of(ctx_id)
    del requests[index]
    run.replace_turns(ctx_id, requests)


def double(run: Run, ctx_id: str, index: int) -> None:
    requests = run.requests_of(ctx_id)
    run.replace_turns(ctx_id, [*requests, requests[index]])


def swap(run: Run, ctx_id: str, index: int) -> None:
    requests = run.requests_of(ctx_id)
    other = (index + 1) % len(requests)
    requests[index], requests[other] = requests[other], requests[index]
    run.replace_turns(ctx_id, requests)


def invent_turn(run: Run, ctx_id: str, index: int) -> None:
    requests = run.requests_of(ctx_id)
    requests.insert(index, "never-sent")
    run.replace_turns(ctx_id, requests)


def miscount(run: Run, ctx_id: str, index: int) -> None:
    run.contexts[ctx_id] = replace(run.contexts[ctx_id], applied=index)


def lose_version(run: Run, ctx_id: str, index: int) -> None:
    run.contexts[ctx_id] = replace(run.contexts[ctx_id], version=index)


def number_a_turn_wrong(run: Run, ctx_id: str, index: int) -> None:
    turns = list(run.contexts[ctx_id].turns)
    turns[index] = replace(turns[index], number=turns[index].number + 100)
    run.contexts[ctx_id] = replace(run.contexts[ctx_id], turns=turns)


def lose_replies(run: Run, ctx_id: str, index: int) -> None:
    for n in reversed(run.replies_to(run.requests_of(ctx_id)[index])):
        del run.events[n]


def spoil_reply(change: Callable[[Replied], Replied]) -> Callable[[Run, str, int], None]:
    def spoil(run: Run, ctx_id: str, index: int) -> None:
        last = run.replies_to(run.requests_of(ctx_id)[index])[-1]
        event = run.events[last]
        assert isinstance(event, Replied)
        run.events[last] = change(event)

    return spoil


def invent_reply(run: Run, ctx_id: str, index: int) -> None:
    run.events.append(reply(ctx_id, f"never-sent-{index}", 1, len(run.events)))


def answer_with_error(run: Run, ctx_id: str, index: int) -> None:
    for n in run.replies_to(run.requests_of(ctx_id)[index]):
        event = run.events[n]
        assert isinstance(event, Replied)
        run.events[n] = replace(event, body=event.body.replace('"ok"', '"error"'))


change_body = spoil_reply(lambda event: replace(event, body=event.body + " "))
change_message_id = spoil_reply(lambda event: replace(event, message_id="another"))

MUTATIONS: dict[Callable[[Run, str, int], None], Kind] = {
    lose: Kind.LOST,
    double: Kind.DOUBLED,
    swap: Kind.DISORDERED,
    invent_turn: Kind.UNKNOWN_TURN,
    miscount: Kind.STATE,
    lose_version: Kind.STATE,
    number_a_turn_wrong: Kind.STATE,
    lose_replies: Kind.NO_REPLY,
    change_body: Kind.DIVERGENT,
    change_message_id: Kind.DIVERGENT,
    answer_with_error: Kind.WRONG_REPLY,
    invent_reply: Kind.UNKNOWN_REPLY,
}


@pytest.mark.parametrize(("mutate", "kind"), MUTATIONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_planted_fault_is_caught_as_what_it_is(mutate: Callable[[Run, str, int], None], kind: Kind) -> None:
    run = clean_run()
    mutate(run, "c1", 1)
    assert kind in run.kinds()


@given(
    contexts=st.integers(1, 4),
    requests=st.integers(2, 8),
    copies=st.integers(2, 3),
    mutate=st.sampled_from(list(MUTATIONS)),
    data=st.data(),
)
def test_a_clean_run_passes_and_any_single_mutation_of_it_is_caught(
    contexts: int, requests: int, copies: int, mutate: Callable[[Run, str, int], None], data: st.DataObject
) -> None:
    run = clean_run(contexts, requests, copies)
    assert run.kinds() == set()
    ctx_id = f"c{data.draw(st.integers(0, contexts - 1))}"
    mutate(run, ctx_id, data.draw(st.integers(0, requests - 1)))
    assert MUTATIONS[mutate] in run.kinds()


@given(order=st.permutations(list(range(24))))
def test_the_order_of_the_lines_does_not_matter(order: list[int]) -> None:
    run = clean_run(contexts=2, requests=3, copies=2)
    assert check([run.events[n] for n in order], run.contexts) == []


class TestAnUnconfirmedRequest:
    """The second of three; its publisher gave it up and went on."""

    @pytest.fixture
    def run_(self) -> Run:
        run = clean_run(contexts=1, requests=3)
        run.events = [e for e in run.events if e.request_id != "c0-2" or isinstance(e, Sent)]
        run.events = [e for e in run.events if not isinstance(e, Replied)]
        return run

    def settle(self, run: Run, request_ids: list[str]) -> Run:
        run.replace_turns("c0", request_ids)
        run.events += [reply("c0", request_id, n, 100 + n) for n, request_id in enumerate(request_ids, start=1)]
        return run

    @pytest.mark.parametrize("turns", [["c0-1", "c0-3"], ["c0-1", "c0-2", "c0-3"], ["c0-1", "c0-3", "c0-2"]])
    def test_may_be_applied_never_in_place_or_late(self, run_: Run, turns: list[str]) -> None:
        assert self.settle(run_, turns).kinds() == set()

    def test_must_not_come_before_what_was_confirmed_when_it_was_sent(self, run_: Run) -> None:
        assert self.settle(run_, ["c0-2", "c0-1", "c0-3"]).kinds() == {Kind.DISORDERED}

    def test_must_not_be_applied_twice(self, run_: Run) -> None:
        assert Kind.DOUBLED in self.settle(run_, ["c0-1", "c0-2", "c0-2", "c0-3"]).kinds()

    def test_must_be_answered_where_it_was_applied(self, run_: Run) -> None:
        self.settle(run_, ["c0-1", "c0-2", "c0-3"])
        run_.events = [e for e in run_.events if not (isinstance(e, Replied) and e.request_id == "c0-2")]
        assert run_.kinds() == {Kind.NO_REPLY}

    def test_must_not_be_answered_where_it_was_not_applied(self, run_: Run) -> None:
        self.settle(run_, ["c0-1", "c0-3"])
        run_.events.append(reply("c0", "c0-2", 2, 200))
        assert run_.kinds() == {Kind.WRONG_REPLY}


def test_a_request_that_was_applied_to_another_context_is_unknown_there_and_lost_here() -> None:
    run = clean_run()
    stolen = run.requests_of("c0").pop()
    run.replace_turns("c0", run.requests_of("c0")[:-1])
    run.replace_turns("c1", [*run.requests_of("c1"), stolen])
    assert {Kind.LOST, Kind.UNKNOWN_TURN} <= run.kinds()


def test_an_explanation_names_context_request_and_what_was_expected_and_found() -> None:
    run = clean_run()
    swap(run, "c1", 1)
    told = next(str(v) for v in check(run.events, run.contexts) if v.kind is Kind.DISORDERED)
    assert "context 'c1', request 'c1-2'" in told
    assert "expected: before 'c1-3'" in told
    assert "found:    turn 3, and 'c1-3' turn 2" in told


def test_a_history_that_contradicts_itself_is_no_verdict_but_an_error() -> None:
    with pytest.raises(ValueError, match="confirmed and never sent"):
        check([Confirmed("r", 1)], {})
    with pytest.raises(ValueError, match="sent twice"):
        check([Sent("r", "c", 1), Sent("r", "c", 2)], {})


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    run = clean_run()
    with Recorder(tmp_path / "even") as even, Recorder(tmp_path / "odd") as odd:
        for n, event in enumerate(run.events):
            (odd if n % 2 else even).write(event)
    assert sorted(map(repr, read([tmp_path / "odd", tmp_path / "even"]))) == sorted(map(repr, run.events))


def test_a_torn_line_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "torn").write_text('{"event": "sent", "requ')
    with pytest.raises(ValueError, match="torn:1: no event"):
        read([tmp_path / "torn"])
