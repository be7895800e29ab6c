"""What `switchboard status` makes of what workers and the broker say."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from interfaces.brokers import QueueState
from interfaces.topology import Topology
from worker.cli.output import json_line
from worker.cli.overview import Overview, Shard
from worker.cli.overview_tables import plain_text, rich_tables
from worker.members import Identity, Member, Rate, read_members
from worker.plan import Plan

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
TOPOLOGY = Topology("ns", shards=2)
FIRST, SECOND = TOPOLOGY.shard_queues
BUSY = Member(
    consuming=[FIRST],
    subscribed=[FIRST, SECOND],
    host="node-1",
    pid=42,
    version="0.1.0",
    started_at=NOW - timedelta(minutes=5),
    turns=1234,
    rate=5.25,
    unsettled={FIRST: 3},
    oldest={FIRST: 1.5},
)


def overview(*shards: Shard, dead: int = 0, members: Mapping[str, Member] | None = None) -> Overview:
    return Overview("ns", NOW, Plan.of(TOPOLOGY), members or {}, shards, QueueState(dead, 0))


def healthy(queue: str) -> Shard:
    return Shard(queue, QueueState(7, 1), ["w-a"], ["w-b"], 3, 1.5)


@pytest.mark.parametrize(
    ("shard", "fault"),
    [
        (healthy(FIRST), ""),
        (Shard(FIRST, None, [], [], 0, None), "missing"),
        (Shard(FIRST, QueueState(1, 0), ["a"], [], 0, None), "no consumer"),
        (Shard(FIRST, QueueState(1, 1), ["a", "b"], [], 0, None), "changing hands"),
        (Shard(FIRST, QueueState(1, 1), [], ["a"], 0, None), "no owner"),
    ],
)
def test_each_fault_of_a_shard_is_named(shard: Shard, fault: str) -> None:
    assert shard.fault == fault
    assert (fault or "ok") in plain_text(overview(shard)).splitlines()[-1]


def test_the_headline_sums_up_and_says_what_is_without_service() -> None:
    text = plain_text(overview(healthy(FIRST), Shard(SECOND, None, [], [], 0, None), dead=2, members={"a": BUSY}))
    assert text.splitlines()[0] == (
        "namespace 'ns': 2 shards, generation 1, 1 workers, 5.2 turns/s, 7 ready, 3 held, 2 dead letters, "
        "1 of 2 shards without service"
    )


def test_a_worker_is_shown_with_what_it_owns_and_holds() -> None:
    lines = plain_text(overview(healthy(FIRST), members={"Interface-abc": BUSY})).splitlines()
    assert lines[3].split() == ["abc", "node-1:42", "0.1.0", "5", "min", "1", "1", "3", "1.5", "s", "1234", "5.2"]


def test_everything_is_in_the_data_for_scripts_with_numbers_as_numbers() -> None:
    data = json.loads(json_line(overview(healthy(FIRST), dead=1, members={"a": BUSY}).as_data()))
    assert (data["ready"], data["unsettled"], data["dead_letters"], data["turns_per_second"]) == (7, 3, 1, 5.25)
    assert data["at"] == "2026-01-02T12:00:00Z"
    assert data["workers"][0] | {"name": "a", "unsettled": 3, "rate": 5.25} == data["workers"][0]
    assert data["shards"][0] | {"owners": ["w-a"], "standbys": ["w-b"], "oldest_seconds": 1.5} == data["shards"][0]


def test_nothing_a_worker_says_of_itself_steers_the_terminal() -> None:
    evil = BUSY.model_copy(update={"host": "\x1b[31mred", "version": "\x9b2J"})
    found = overview(Shard(FIRST, QueueState(0, 1), ["\x1b]0;owner"], [], 0, None), members={"\x1b[2J": evil})
    console = Console(force_terminal=True, width=200, color_system=None)
    with console.capture() as captured:
        for part in rich_tables(found):
            console.print(part)
    for text in (captured.get(), plain_text(found), json_line(found.as_data())):
        assert not [control for control in ("\x1b[31m", "\x1b[2J", "\x1b]0;", "\x9b") if control in text]


def test_tables_fit_eighty_columns() -> None:
    console = Console(force_terminal=True, width=80, color_system=None)
    with console.capture() as captured:
        for part in rich_tables(overview(healthy(FIRST), members={"Interface-abcdef12": BUSY})):
            console.print(part)
    assert "abcdef12 node-1:42" in captured.get()


def test_a_member_of_another_version_can_be_read() -> None:
    older = b'{"consuming": ["q"], "subscribed": ["q"]}'
    newer = b'{"consuming": ["q"], "mood": "good", "subscribed": []}'
    members = read_members({"older": older, "newer": newer, "broken": b"{"})
    assert [members[name].consuming for name in ("older", "newer", "broken")] == [["q"], ["q"], []]


def test_a_member_survives_the_way_through_the_store() -> None:
    said = Identity(None).member(turns=3, consuming=["q"])
    assert read_members({"a": said.model_dump_json().encode()}) == {"a": said}


def test_the_rate_follows_what_happens_and_forgets() -> None:
    rate = Rate(half_life=5)
    assert rate.update(0, 100) == 0
    for second in range(1, 61):
        found = rate.update(second, 100 + 10 * second)
    assert found == pytest.approx(10, rel=0.01)
    assert rate.update(65, 700) == pytest.approx(5, rel=0.01)
