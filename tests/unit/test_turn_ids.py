"""`TurnIds` against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.chatsky.turn_ids import TurnIds

ids = st.sets(st.integers(0, 30))
changes = st.lists(st.tuples(st.booleans(), st.integers(0, 30)))


@given(ids, changes)
def test_it_is_a_sorted_set(start: set[int], changes: list[tuple[bool, int]]) -> None:
    expected, turn_ids = set(start), TurnIds.of(start)
    for is_added, turn_id in changes:
        if is_added:
            expected.add(turn_id)
            turn_ids.add(turn_id)
        else:
            expected.discard(turn_id)
            turn_ids.discard(turn_id)
    assert turn_ids == sorted(expected)
    assert len(turn_ids) == len(expected)
    assert [turn_id in turn_ids for turn_id in range(-1, 32)] == [turn_id in expected for turn_id in range(-1, 32)]
    assert TurnIds(turn_ids.ranges) == turn_ids
    gaps = [after[0] - before[1] for before, after in zip(turn_ids.ranges, turn_ids.ranges[1:], strict=False)]
    assert all(gap > 1 for gap in gaps), "two ranges that touch are one"


@given(ids, st.slices(31), st.integers(0, 31))
def test_it_is_indexed_as_a_list_is(items: set[int], part: slice, lowest: int) -> None:
    turn_ids, expected = TurnIds.of(items), sorted(items)
    assert turn_ids[part] == expected[part]
    assert list(reversed(turn_ids)) == expected[::-1]
    for place in range(-len(expected), len(expected)):
        assert turn_ids[place] == expected[place]
    turn_ids.drop_below(lowest)
    assert turn_ids == [turn_id for turn_id in expected if turn_id >= lowest]


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError, match="there are 2, asked for number 2"):
        TurnIds([(4, 5)])[2]
    with pytest.raises(IndexError):
        TurnIds()[-1]


def test_a_copy_is_its_own() -> None:
    turn_ids = TurnIds([(0, 9)])
    copy = turn_ids.copy()
    turn_ids.discard(5)
    assert copy.ranges == [(0, 9)]


def test_a_dialog_without_gaps_is_one_range_however_long() -> None:
    turn_ids = TurnIds()
    for turn_id in range(1000):
        turn_ids.add(turn_id)
    assert turn_ids.ranges == [(0, 999)]
