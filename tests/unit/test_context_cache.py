"""What a process has in hand of contexts stays within its bytes, and moves with a commit where all of that is known."""

import pytest

from worker.stores import Turn
from worker.stores.context_cache import BESIDE, ContextCache, Known

MISSING = b"\xff\xff\xff\xff"


def known(version: int = 0, *, main: bytes = b"", history: int = 10) -> Known:
    """A context without turns."""
    return Known.loaded(b"key", 1, history, version, 0, main, MISSING * min(history, version + 1))


def turn(version: int, *others: int, revision: int = 0, main: bytes = b"main") -> Turn:
    turns = {n: b"turn %d" % n for n in (*others, version + 1)}
    return Turn("ada", "request", version, main, turns, b"reply", revision)


@pytest.mark.parametrize(("history", "max_turns", "kept"), [(3, None, 3), (10, 2, 2), (2, 10, 2), (10, None, 6)])
def test_after_a_commit_there_is_what_a_load_would_find(history: int, max_turns: int | None, kept: int) -> None:
    now: Known | None = known(history=history)
    for version in range(6):
        assert now is not None
        now = now.after(turn(version, main=b"main %d" % version), max_turns)
    assert now is not None
    assert (now.version, now.main, now.epoch, now.key) == (6, b"main 5", 1, b"key")
    assert dict(now.as_loaded(None, 1).turns) == {n: b"turn %d" % n for n in range(7 - kept, 7)}


@pytest.mark.parametrize("commit", [turn(4), turn(6), turn(5, revision=1), turn(5, 2), turn(5, 0, 3)])
def test_after_a_commit_of_which_not_all_is_known_nothing_is_in_hand(commit: Turn) -> None:
    assert known(5).after(commit, None) is None


def test_what_is_taken_is_no_longer_kept() -> None:
    cache = ContextCache(10_000)
    cache.keep("ada", known(3))
    assert cache.take("ada") == known(3)
    assert cache.take("ada") is None


def test_what_a_bot_unpacks_is_not_kept() -> None:
    now = known().after(turn(0), None)
    assert now is not None
    first, second = now.as_loaded(None, 1), now.as_loaded(None, 1)
    assert first.turns == second.turns
    assert first.turns is not second.turns


def test_those_used_longest_ago_go_first() -> None:
    cache = ContextCache(4 * (BESIDE + 1000 + len(MISSING)))
    for name in "abcd":
        cache.keep(name, known(main=bytes(1000)))
    used = cache.take("a")
    assert used is not None
    cache.keep("a", used)
    cache.keep("e", known(main=bytes(1000)))
    assert [name for name in "abcde" if cache.take(name)] == ["a", "c", "d", "e"]


def test_nothing_is_counted_of_what_went() -> None:
    cache = ContextCache(4 * (BESIDE + 100 + len(MISSING)))
    for number in range(1000):
        cache.keep(f"{number % 7}", known(main=bytes(number % 300)))
        if number % 3:
            cache.take(f"{number % 7}")
    for number in range(7):
        cache.take(f"{number}")
    for name in "abcd":
        cache.keep(name, known(main=bytes(100)))
    assert all(cache.take(name) for name in "abcd")


def test_what_is_larger_than_all_that_may_be_kept_is_not() -> None:
    for cache in (ContextCache(0), ContextCache(1000)):
        cache.keep("ada", known(main=bytes(1000)))
        assert cache.take("ada") is None
