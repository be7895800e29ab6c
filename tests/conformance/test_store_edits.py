"""Edits, changes of a context that are no turn, and turn 0: what every `ContextStore` does with them."""

import asyncio

import pytest

from interfaces.errors import VersionConflict
from tests.conformance.store_probes import OpenStore
from worker.stores import ContextStore, Edit, Loaded, Retention, Turn

pytest_plugins = ["tests.conformance.store_fixtures"]

EPOCH = 1_700_000_000_000_000


def edit(edit_id: str, *, version: int = 0, revision: int = 0, new: int = 2, **turns: bytes) -> Edit:
    numbered = {int(name.removeprefix("t")): turn for name, turn in turns.items()}
    return Edit("ctx", edit_id, version, revision, new, b"main of %b" % edit_id.encode(), numbered)


async def load(store: ContextStore, request_id: str, history: int = 5) -> Loaded:
    return await store.load("ctx", request_id, epoch=EPOCH, attempt=f"attempt {request_id}", history=history)


async def test_an_edit_makes_a_context_at_any_version(store: ContextStore) -> None:
    await store.edit(edit("e1", new=3, t0=b"start", t2=b"two", t3=b"three"))
    turns = {0: b"start", 2: b"two", 3: b"three"}
    assert await store.peek("ctx", 10) == Loaded(3, b"main of e1", turns, None, 0, revision=1)
    assert await load(store, "r1", history=2) == Loaded(3, b"main of e1", {2: b"two", 3: b"three"}, None, 1, revision=1)


async def test_a_turn_goes_on_from_an_edited_context(store: ContextStore) -> None:
    await store.edit(edit("e1", t1=b"one", t2=b"two"))
    found = await load(store, "r1")
    await store.commit(Turn("ctx", "r1", found.version, b"main 3", {3: b"three"}, b"reply", found.revision))
    assert await load(store, "r1") == Loaded(3, b"main 3", {1: b"one", 2: b"two", 3: b"three"}, b"reply", 0, revision=1)


async def test_a_turn_that_runs_meanwhile_gets_a_conflict(store: ContextStore) -> None:
    before = await load(store, "r1")
    await store.edit(edit("e1", new=0))
    with pytest.raises(VersionConflict, match="revision 0"):
        await store.commit(Turn("ctx", "r1", before.version, b"main", {1: b"one"}, b"reply", before.revision))
    again = await load(store, "r1")
    assert (again.version, again.revision, again.main) == (0, 1, b"main of e1")


async def test_of_edits_that_read_the_same_one_is_made(store: ContextStore) -> None:
    outcomes = await asyncio.gather(*(store.edit(edit(f"e{n}")) for n in range(5)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 4
    found = await store.peek("ctx", 1)
    assert found is not None
    assert found.revision == 1


async def test_an_edit_repeated_after_a_lost_answer_is_made_once(store: ContextStore) -> None:
    first = edit("e1", t1=b"one")
    await store.edit(first)
    await store.edit(first)
    found = await store.peek("ctx", 10)
    assert found is not None
    assert found.revision == 1


async def test_an_edit_changes_single_turns(store: ContextStore) -> None:
    await store.edit(edit("e1", t0=b"start", t1=b"one", t2=b"two"))
    await store.edit(edit("e2", version=2, revision=1, t1=b"other", t7=b"ahead"))
    assert await store.read_turns("ctx", range(10)) == {0: b"start", 1: b"other", 2: b"two", 7: b"ahead"}


async def test_a_version_never_goes_down(store: ContextStore) -> None:
    await store.edit(edit("e1", new=5))
    with pytest.raises(VersionConflict):
        await store.edit(edit("e2", version=5, revision=1, new=4))


async def test_replies_of_committed_requests_outlive_an_edit(store: ContextStore) -> None:
    await store.commit(Turn("ctx", "r1", 0, b"main", {1: b"one"}, b"reply 1"))
    await store.edit(edit("e1", version=1, new=4))
    await store.commit(Turn("ctx", "r2", 4, b"main", {5: b"five"}, b"reply 2", 1))
    assert (await load(store, "r1")).reply == b"reply 1"
    assert (await load(store, "r2")).reply == b"reply 2"


async def test_an_edit_stores_no_turn_that_the_window_has_passed(open_store: OpenStore) -> None:
    store = await open_store(Retention(max_turns=2))
    await store.edit(edit("e1", new=4, t0=b"turn 0", t1=b"turn 1", t2=b"turn 2", t3=b"turn 3", t4=b"turn 4"))
    assert await store.read_turns("ctx", range(6)) == {3: b"turn 3", 4: b"turn 4"}


async def test_turn_0_is_kept_and_loaded_while_the_window_covers_it(open_store: OpenStore) -> None:
    store = await open_store(Retention(max_turns=2))
    await store.commit(Turn("ctx", "r1", 0, b"main", {0: b"start", 1: b"one"}, b"reply"))
    assert (await load(store, "r2")).turns == {0: b"start", 1: b"one"}
    assert (await load(store, "r2", history=1)).turns == {1: b"one"}
    for version in (1, 2):
        await store.commit(
            Turn("ctx", f"r{version + 1}", version, b"main", {version + 1: b"turn %d" % (version + 1)}, b"reply")
        )
    assert await store.read_turns("ctx", range(5)) == {2: b"turn 2", 3: b"turn 3"}


async def test_context_ids_are_listed_as_they_were_given(store: ContextStore) -> None:
    ids = {"plain", "{braces}", "50%", "%7B", "a:b", "*", "[x]", "é\u2028", "\x00\n"}
    for ctx_id in ids:
        await store.commit(Turn(ctx_id, "r1", 0, b"main", {1: b"one"}, b"reply"))
    assert sorted([ctx_id async for ctx_id in store.context_ids()]) == sorted(ids)
