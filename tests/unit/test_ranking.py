"""Ranking: balanced, agreed by all, and moving no more than balance needs."""

from collections import Counter
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.ranking import Place, rank

SHARDS = st.integers(1, 64).map(lambda number: [f"requests.{shard:03d}" for shard in range(number)])
WORKERS = st.sets(st.integers(0, 99).map(lambda number: f"worker-{number}"), min_size=1, max_size=12)


def settled(shards: list[str], workers: set[str]) -> dict[str, Place]:
    """The places once everybody does what the first ranking said."""
    return again(shards, workers, rank(shards, {worker: [] for worker in workers}, {}))


def again(shards: list[str], workers: set[str], places: dict[str, Place]) -> dict[str, Place]:
    """The ranking where each worker holds what `places` gave it; who is new holds nothing."""
    consuming = {worker: [shard for shard in shards if places[shard].primary == worker] for worker in workers}
    waiting = {worker: [shard for shard in shards if places[shard].standby == worker] for worker in workers}
    return rank(shards, consuming, waiting)


def loads(places: dict[str, Place], workers: set[str]) -> list[int]:
    counted = Counter(place.primary for place in places.values())
    return [counted[worker] for worker in workers]


@given(SHARDS, WORKERS)
def test_every_worker_is_primary_of_its_share_and_no_more(shards: list[str], workers: set[str]) -> None:
    places = settled(shards, workers)
    assert places.keys() == set(shards)
    assert set(loads(places, workers)) <= {len(shards) // len(workers), ceil(len(shards) / len(workers))}


@given(SHARDS, WORKERS)
def test_every_shard_has_a_standby_that_is_not_its_primary(shards: list[str], workers: set[str]) -> None:
    for place in settled(shards, workers).values():
        assert (place.standby is None) == (len(workers) == 1)
        assert place.standby != place.primary


@given(SHARDS, WORKERS.filter(lambda workers: len(workers) > 2))
def test_no_worker_is_standby_of_more_than_its_share(shards: list[str], workers: set[str]) -> None:
    counted = Counter(place.standby for place in settled(shards, workers).values())
    assert max(counted.values()) <= ceil(len(shards) / len(workers))


@given(SHARDS, WORKERS)
def test_nothing_moves_while_nobody_comes_or_goes(shards: list[str], workers: set[str]) -> None:
    places = settled(shards, workers)
    assert again(shards, workers, places) == places


@given(SHARDS, WORKERS)
@settings(max_examples=200)
def test_a_join_moves_only_what_the_new_worker_needs(shards: list[str], workers: set[str]) -> None:
    before = settled(shards, workers)
    after = again(shards, workers | {"new"}, before)
    moved = [shard for shard in shards if after[shard].primary != before[shard].primary]
    assert {after[shard].primary for shard in moved} <= {"new"}
    assert len(moved) == len(shards) // (len(workers) + 1)


@given(SHARDS, WORKERS.filter(lambda workers: len(workers) > 1))
@settings(max_examples=200)
def test_a_leave_moves_only_the_shards_of_who_left(shards: list[str], workers: set[str]) -> None:
    before = settled(shards, workers)
    gone = min(workers)
    after = again(shards, workers - {gone}, before)
    moved = {shard for shard in shards if after[shard].primary != before[shard].primary}
    assert moved == {shard for shard in shards if before[shard].primary == gone}


def test_a_shard_whose_primary_is_gone_goes_to_its_standby_where_that_has_room() -> None:
    places = rank(["a", "b", "c", "d"], {"one": ["a"], "two": ["b"]}, {"one": ["c"], "two": ["d"]})
    assert (places["c"].primary, places["d"].primary) == ("one", "two")


def test_a_shard_that_two_say_they_consume_is_given_to_one_of_them_whoever_asks() -> None:
    first = rank(["a"], {"one": ["a"], "two": ["a"]}, {})
    assert first == rank(["a"], {"two": ["a"], "one": ["a"]}, {})
