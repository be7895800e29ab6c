"""Turns in one piece of memory: what is unpacked is what was packed, and the window moves as a list's would."""

from hypothesis import given
from hypothesis import strategies as st

from worker.stores.packed_turns import PackedTurns, moved

contents = st.none() | st.binary(max_size=40) | st.just(b"\xff\xff\xff\xff")
"""Missing ones, empty ones, and one that looks like the mark of a missing one."""


def packed(turns: list[bytes | None]) -> bytes:
    """As `load.lua` packs them."""
    return b"".join(
        (-1 if turn is None else len(turn)).to_bytes(4, "little", signed=True) + (turn or b"") for turn in turns
    )


def numbered(turns: list[bytes | None], last: int) -> dict[int, bytes]:
    return {n: turn for n, turn in enumerate(turns, start=last - len(turns) + 1) if turn is not None}


@given(st.lists(contents, max_size=12), st.integers(0, 100))
def test_what_is_unpacked_is_what_was_packed(turns: list[bytes | None], last: int) -> None:
    unpacked = PackedTurns(last, len(turns), packed(turns))
    assert unpacked == numbered(turns, last)
    assert list(unpacked) == sorted(unpacked)
    assert len(unpacked) == len(turns) - turns.count(None)


@given(st.lists(contents, min_size=1, max_size=8), st.lists(st.binary(max_size=20), max_size=12), st.integers(1, 10))
def test_the_window_moves_with_each_turn(turns: list[bytes | None], new: list[bytes], most: int) -> None:
    last, count, window = len(turns) - 1, len(turns), packed(turns)
    for content in new:
        last, (count, window) = last + 1, moved(count, window, content, most)
    expected = [*turns, *new][-most:] if new else turns
    assert PackedTurns(last, count, window) == numbered(expected, last)
