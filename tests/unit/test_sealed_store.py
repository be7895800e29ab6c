"""What a store holds under keys: nothing to be read, nothing that works in another place, and both ways of a rotation.

What every store does, it does as well: it is one of those in `tests/conformance`.
"""

from typing import Any

import pytest

from interfaces.encryption import Keys
from interfaces.errors import Reason, RequestRejected
from worker.stores import Edit, Loaded, Retention, Turn
from worker.stores.memory import MemoryStore
from worker.stores.sealed import SealedStore

MARKER = b"Xylophon4711"
K1, K2 = bytes([1]) * 64, bytes([2]) * 64
KEYS = Keys({"k1": K1})


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore(Retention())


@pytest.fixture
def store(inner: MemoryStore) -> SealedStore:
    return SealedStore(inner, KEYS)


def turn(number: int, ctx_id: str = "ada") -> Turn:
    return Turn(ctx_id, f"r{number}", number - 1, b"main " + MARKER, {number: b"turn " + MARKER}, b"reply " + MARKER)


async def load(store: SealedStore, request_id: str = "new", ctx_id: str = "ada") -> Loaded:
    return await store.load(ctx_id, request_id, epoch=1, attempt="a", history=5)


async def test_nothing_that_was_said_is_in_the_store(store: SealedStore, inner: MemoryStore) -> None:
    await store.commit(turn(1))
    assert MARKER not in repr(inner._contexts).encode()
    assert (await load(store)).turns == {1: b"turn " + MARKER}
    assert (await load(store, "r1")).reply == b"reply " + MARKER
    assert await store.commit(turn(1)) == b"reply " + MARKER


MOVES: dict[str, Any] = {
    "turn to another number": lambda ada, bob: ada.turns.update({1: ada.turns[2]}),
    "turn to another context": lambda ada, bob: ada.turns.update({2: bob.turns[2]}),
    "turn as main": lambda ada, bob: setattr(ada, "main", ada.turns[2]),
    "main of another context": lambda ada, bob: setattr(ada, "main", bob.main),
    "main of another version": lambda ada, bob: setattr(ada, "version", 1),
    "plain turn": lambda ada, bob: ada.turns.update({2: b"{}"}),
    "plain main": lambda ada, bob: setattr(ada, "main", b"{}"),
    "empty": lambda ada, bob: setattr(ada, "main", b""),
    "cut": lambda ada, bob: setattr(ada, "main", ada.main[:1]),
    "cut in the id": lambda ada, bob: setattr(ada, "main", ada.main[:3]),
    "no text as id": lambda ada, bob: setattr(ada, "main", b"\x01\x02\xff\xff" + ada.main[4:]),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_what_was_moved_is_refused(store: SealedStore, inner: MemoryStore, move: Any) -> None:
    for ctx_id in ("ada", "bob"):
        for number in (1, 2):
            await store.commit(turn(number, ctx_id))
    move(inner._contexts["ada"], inner._contexts["bob"])
    with pytest.raises(RequestRejected) as caught:
        await load(store)
    assert caught.value.reason is Reason.CONTEXT_INVALID
    with pytest.raises(RequestRejected):
        await store.peek("ada", 5)
    assert (await load(store, ctx_id="bob")).version == 2


async def test_a_reply_of_another_request_is_refused(store: SealedStore, inner: MemoryStore) -> None:
    await store.commit(turn(1))
    await store.commit(turn(2))
    outbox = inner._contexts["ada"].outbox
    outbox["r1"] = outbox["r2"]
    for read in (load(store, "r1"), store.commit(turn(1)), store.read_outbox("ada")):
        with pytest.raises(RequestRejected, match="reply r1: it was changed or moved"):
            await read


async def test_a_new_key_writes_and_the_old_one_reads_until_it_is_taken_away(
    store: SealedStore, inner: MemoryStore
) -> None:
    await store.commit(turn(1))
    rotating = SealedStore(inner, Keys({"k2": K2, "k1": K1}))
    await rotating.commit(turn(2))
    assert (await load(rotating)).turns.keys() == {1, 2}
    rotated = SealedStore(inner, Keys({"k2": K2}))
    assert (await rotated.read_turns("ada", [2])) == {2: b"turn " + MARKER}
    with pytest.raises(RequestRejected, match="the key 'k1', which is not in SWITCHBOARD_ENCRYPTION_KEYS"):
        await rotated.read_turns("ada", [1])


async def test_contexts_go_from_plain_to_encrypted_while_both_are_accepted(inner: MemoryStore) -> None:
    await inner.commit(turn(1))
    prepared = SealedStore(inner, Keys({"plain": None, "k1": K1}))
    await prepared.commit(turn(2))
    assert MARKER in (inner._contexts["ada"].main or b"")
    writing = SealedStore(inner, Keys({"k1": K1, "plain": None}))
    await writing.commit(turn(3))
    for store in (prepared, writing):
        assert (await load(store)).turns == dict.fromkeys((1, 2, 3), b"turn " + MARKER)
    with pytest.raises(RequestRejected, match="turn 1: it is not encrypted, and 'plain' is not in"):
        await load(SealedStore(inner, KEYS))


async def test_an_edit_is_bound_to_the_version_it_makes(store: SealedStore) -> None:
    await store.edit(Edit("ada", "e1", 0, 0, 7, b"main", {7: b"seven", 6: b"six"}))
    loaded = await load(store)
    assert (loaded.version, loaded.main, loaded.turns) == (7, b"main", {6: b"six", 7: b"seven"})
    await store.edit(Edit("ada", "e2", 7, 1, 7, b"main again", {6: b"six again"}))
    assert (await load(store)).turns == {6: b"six again", 7: b"seven"}
