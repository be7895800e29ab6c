"""What every `ContextStore` does, claim by claim: run on the memory store and on Redis."""

import asyncio
import time
from collections.abc import Mapping

import pytest

from interfaces.errors import TurnAbandoned, VersionConflict
from tests.conformance.store_probes import OpenStore
from worker.stores import ContextStore, Edit, Loaded, Outbox, Retention, Turn

pytest_plugins = ["tests.conformance.store_fixtures"]

EPOCH = 1_700_000_000_000_000
AWKWARD_IDS = [
    *(
        "{",
        "}",
        "{}",
        "{{}}",
        "}{",
        "a{b}c",
        "%7B",
        "%",
        "%25",
        "a\nb",
        "a\\nb",
        "a\x00b",
        "a",
        "a ",
        " a",
        "\x7f",
        "*",
        "?",
    ),
    *("a:b", "ctx:{a}", "\u2028", "é", "e\u0301", "🙂" * 63, "🙂" * 62 + "abc", "x" * 200, "../a", "\r\n", "\t"),
]


async def load(
    store: ContextStore,
    request_id: str,
    *,
    ctx_id: str = "ctx",
    epoch: int = EPOCH,
    attempt: str = "first",
    history: int = 5,
    counted: int = 1,
) -> Loaded:
    return await store.load(ctx_id, request_id, epoch=epoch, attempt=attempt, history=history, counted=counted)


def new_turn(
    request_id: str,
    version: int,
    *,
    ctx_id: str = "ctx",
    reply: bytes | None = None,
    turns: Mapping[int, bytes] | None = None,
) -> Turn:
    return Turn(
        ctx_id=ctx_id,
        request_id=request_id,
        version=version,
        main=b"main %d" % (version + 1),
        turns={version + 1: b"turn %d" % (version + 1)} if turns is None else turns,
        reply=f"reply to {request_id}".encode() if reply is None else reply,
    )


async def commit_many(store: ContextStore, count: int, *, ctx_id: str = "ctx") -> None:
    for version in range(count):
        await store.commit(new_turn(f"request {version + 1}", version, ctx_id=ctx_id))


async def test_a_new_context_has_version_0_and_nothing_in_it(store: ContextStore) -> None:
    assert await load(store, "r1") == Loaded(version=0, main=None, turns={}, reply=None, starts=1)


async def test_what_was_committed_is_loaded_byte_for_byte(store: ContextStore) -> None:
    content = bytes(range(256)) * 4096
    turn = Turn("ctx", "r1", 0, main=content, turns={1: content[::-1]}, reply=b"")
    assert await store.commit(turn) == b""
    assert await load(store, "r2") == Loaded(1, content, {1: content[::-1]}, None, 1)
    assert await load(store, "r1") == Loaded(1, content, {1: content[::-1]}, b"", 0)


async def test_a_load_returns_the_last_turns_up_to_the_history_asked_for(store: ContextStore) -> None:
    await commit_many(store, 12)
    assert (await load(store, "next", history=3)).turns == {n: b"turn %d" % n for n in (10, 11, 12)}
    assert (await load(store, "next", history=0)).turns == {}
    assert (await load(store, "next", history=1000)).turns == {n: b"turn %d" % n for n in range(1, 13)}


async def test_a_history_may_be_longer_than_what_one_command_can_ask_for(store: ContextStore) -> None:
    """A pipeline's `partial_read_config` sets no bound; Lua passes some 8,000 values to one command."""
    count = 9_001
    turns = {n: b"turn %d" % n for n in range(1, count + 1)}
    del turns[1000], turns[1001], turns[count]
    await store.edit(Edit("ctx", "import", 0, 0, count, b"main", turns))
    assert (await load(store, "next", history=count)).turns == turns
    peeked = await store.peek("ctx", count)
    assert peeked is not None
    assert peeked.turns == turns


async def test_a_commit_may_change_older_turns(store: ContextStore) -> None:
    await commit_many(store, 3)
    await store.commit(new_turn("r4", 3, turns={1: b"changed", 4: b"turn 4"}))
    assert await store.read_turns("ctx", [1, 2, 3, 4]) == {1: b"changed", 2: b"turn 2", 3: b"turn 3", 4: b"turn 4"}


async def test_of_two_writers_of_one_version_the_second_gets_a_conflict_and_changes_nothing(
    store: ContextStore,
) -> None:
    first, second = await load(store, "r1"), await load(store, "r2")
    await store.commit(new_turn("r1", first.version, reply=b"first"))
    with pytest.raises(VersionConflict):
        await store.commit(new_turn("r2", second.version, reply=b"second", turns={1: b"overwritten"}))
    loaded = await load(store, "r2", attempt="again")
    assert (loaded.version, loaded.main, loaded.turns, loaded.reply) == (1, b"main 1", {1: b"turn 1"}, None)


@pytest.mark.parametrize("version", [1, 3, 10**9])
async def test_a_commit_at_another_version_than_the_current_one_is_a_conflict(
    store: ContextStore, version: int
) -> None:
    await commit_many(store, 2)
    with pytest.raises(VersionConflict):
        await store.commit(new_turn("late", version))


async def test_writers_racing_for_one_context_lose_nothing(store: ContextStore) -> None:
    writers, rounds = 4, 50
    conflicts = 0

    async def write(writer: int) -> None:
        nonlocal conflicts
        for number in range(rounds):
            request_id = f"writer {writer} round {number}"
            while True:
                loaded = await load(store, request_id)
                await asyncio.sleep(0)
                total = int(loaded.main or b"0") + 1
                try:
                    await store.commit(Turn("ctx", request_id, loaded.version, b"%d" % total, {}, b"reply"))
                except VersionConflict:
                    conflicts += 1
                else:
                    break

    await asyncio.gather(*(write(writer) for writer in range(writers)))
    loaded = await load(store, "last")
    assert (loaded.version, loaded.main) == (writers * rounds, b"%d" % (writers * rounds))
    assert conflicts > 0


async def test_a_repeated_commit_returns_the_first_reply_and_changes_nothing(store: ContextStore) -> None:
    await store.commit(new_turn("r1", 0, reply=b"first"))
    for version in (0, 1, 7):
        assert await store.commit(new_turn("r1", version, reply=b"second", turns={1: b"other"})) == b"first"
    loaded = await load(store, "r2")
    assert (loaded.version, loaded.turns) == (1, {1: b"turn 1"})


async def test_loading_a_committed_request_returns_its_reply_and_counts_nothing(store: ContextStore) -> None:
    await store.commit(new_turn("r1", 0, reply=b"the reply"))
    await load(store, "r2", attempt="a")
    for attempt in ("b", "c"):
        loaded = await load(store, "r1", attempt=attempt)
        assert (loaded.version, loaded.reply, loaded.starts) == (1, b"the reply", 0)
    assert (await load(store, "r2", attempt="d")).starts == 2


@pytest.mark.parametrize("counted_at_first", [1, 3])
async def test_starts_are_counted_once_per_attempt(store: ContextStore, counted_at_first: int) -> None:
    assert [(await load(store, "r1", attempt="a", counted=counted_at_first)).starts for _ in range(2)] == [1, 1]
    attempts = ["b", "b", "b", "c:1:x"]
    starts = [(await load(store, "r1", attempt=attempt, counted=3)).starts for attempt in attempts]
    assert starts == [2, 2, 2, 3]


async def test_a_start_beyond_those_that_count_is_told_and_not_counted(store: ContextStore) -> None:
    for attempt in ("a", "b"):
        await load(store, "r1", attempt=attempt, counted=2)
    assert [(await load(store, "r1", attempt=attempt, counted=2)).starts for attempt in ("c", "d", "e")] == [3, 3, 3]
    assert (await load(store, "r1", attempt="e", counted=3)).starts == 3
    assert (await load(store, "r1", attempt="e", counted=2)).starts == 3
    assert (await load(store, "r1", attempt="f", counted=2)).starts == 4


async def test_a_start_that_is_not_counted_notes_its_epoch_all_the_same(store: ContextStore) -> None:
    await load(store, "r1", attempt="a")
    await load(store, "r1", attempt="b", epoch=EPOCH + 1)
    with pytest.raises(TurnAbandoned):
        await load(store, "r1", attempt="a", epoch=EPOCH)


async def test_a_start_is_taken_back_by_its_attempt_and_those_before_it_stay(store: ContextStore) -> None:
    await load(store, "r1", attempt="a")
    await load(store, "r1", attempt="b", counted=2)
    for attempt in ("a", "c", "b", "b"):
        await store.forget_start("ctx", "r1", attempt)
    assert (await load(store, "r1", attempt="b")).starts == 2


async def test_the_only_start_taken_back_leaves_no_suspect(store: ContextStore) -> None:
    await load(store, "r1", attempt="a")
    await store.forget_start("ctx", "r1", "a")
    await store.forget_start("ctx", "r1", "a")
    assert (await load(store, "r1", attempt="b")).starts == 1


async def test_starts_begin_anew_for_another_request(store: ContextStore) -> None:
    await load(store, "r1", attempt="a")
    assert (await load(store, "r1", attempt="b")).starts == 2
    assert (await load(store, "r2", attempt="b")).starts == 1
    assert (await load(store, "r1", attempt="c")).starts == 1


async def test_a_commit_ends_the_counting_of_its_request_only(store: ContextStore) -> None:
    await load(store, "r2", attempt="a")
    await store.commit(new_turn("r1", 0))
    assert (await load(store, "r2", attempt="b")).starts == 2
    await store.commit(new_turn("r2", 1))
    peeked = await store.peek("ctx", 0)
    assert peeked is not None
    assert peeked.starts == 0


async def test_forgetting_a_start_begins_the_counting_anew(store: ContextStore) -> None:
    await load(store, "r1", attempt="a")
    await load(store, "r1", attempt="b", counted=2)
    await store.forget_start("ctx", "another request")
    assert (await load(store, "r1", attempt="c")).starts == 3
    await store.forget_start("ctx", "r1")
    await store.forget_start("ctx", "r1")
    assert (await load(store, "r1", attempt="c")).starts == 1


async def test_forgetting_a_start_keeps_the_epoch(store: ContextStore) -> None:
    await load(store, "r1", epoch=EPOCH + 1)
    await store.forget_start("ctx", "r1")
    with pytest.raises(TurnAbandoned):
        await load(store, "r1", epoch=EPOCH)


async def test_forgetting_a_start_of_an_unknown_context_does_nothing(store: ContextStore) -> None:
    await store.forget_start("unknown", "r1")
    assert await store.peek("unknown", 1) is None


async def test_a_lower_epoch_is_refused_and_an_equal_or_higher_one_accepted(store: ContextStore) -> None:
    for epoch in (EPOCH, EPOCH, EPOCH + 1, EPOCH + 1, EPOCH + 10**9):
        await load(store, "r1", epoch=epoch)
    for epoch in (EPOCH, EPOCH + 10**9 - 1, 1):
        with pytest.raises(TurnAbandoned):
            await load(store, "r1", epoch=epoch)
    await load(store, "r1", epoch=EPOCH + 10**9)


async def test_a_refused_epoch_counts_no_start(store: ContextStore) -> None:
    await load(store, "r1", epoch=EPOCH, attempt="owner")
    with pytest.raises(TurnAbandoned):
        await load(store, "r1", epoch=EPOCH - 1, attempt="paused worker")
    assert (await load(store, "r1", epoch=EPOCH, attempt="owner")).starts == 1


async def test_a_lower_epoch_does_not_even_get_a_committed_reply(store: ContextStore) -> None:
    await load(store, "r1", epoch=EPOCH)
    await store.commit(new_turn("r1", 0))
    with pytest.raises(TurnAbandoned):
        await load(store, "r1", epoch=EPOCH - 1)


async def test_loading_a_committed_request_notes_no_epoch(store: ContextStore) -> None:
    await load(store, "r1", epoch=EPOCH)
    await store.commit(new_turn("r1", 0))
    await load(store, "r1", epoch=EPOCH + 5)
    assert (await load(store, "r2", epoch=EPOCH)).starts == 1


async def test_the_epoch_of_one_context_does_not_touch_another(store: ContextStore) -> None:
    await load(store, "r1", ctx_id="one", epoch=EPOCH + 1)
    assert (await load(store, "r1", ctx_id="other", epoch=EPOCH)).starts == 1


async def test_every_claim_gives_a_higher_epoch(store: ContextStore) -> None:
    epochs = [await store.claim() for _ in range(50)] + await asyncio.gather(*(store.claim() for _ in range(50)))
    assert len(set(epochs)) == 100
    assert epochs[:50] == sorted(epochs[:50])
    assert min(epochs[50:]) > epochs[49]


async def test_a_claimed_epoch_is_accepted_and_then_refuses_the_one_before(store: ContextStore) -> None:
    before, after = await store.claim(), await store.claim()
    await load(store, "r1", epoch=before)
    await load(store, "r1", epoch=after)
    with pytest.raises(TurnAbandoned):
        await load(store, "r1", epoch=before)


async def test_only_the_newest_replies_are_kept(open_store: OpenStore) -> None:
    store = await open_store(Retention(outbox=3))
    await commit_many(store, 8)
    replies = [(await load(store, f"request {n}")).reply for n in range(1, 9)]
    assert replies == [None] * 5 + [b"reply to request %d" % n for n in (6, 7, 8)]


async def test_a_request_whose_reply_is_no_longer_kept_still_cannot_be_committed_again(open_store: OpenStore) -> None:
    store = await open_store(Retention(outbox=1))
    await commit_many(store, 3)
    with pytest.raises(VersionConflict):
        await store.commit(new_turn("request 1", 0))


async def test_only_the_newest_turns_are_kept(open_store: OpenStore) -> None:
    store = await open_store(Retention(max_turns=4))
    await commit_many(store, 10)
    assert (await load(store, "next", history=100)).turns == {n: b"turn %d" % n for n in (7, 8, 9, 10)}
    assert await store.read_turns("ctx", range(1, 11)) == {n: b"turn %d" % n for n in (7, 8, 9, 10)}


async def test_a_change_to_a_dropped_turn_does_not_bring_it_back(open_store: OpenStore) -> None:
    store = await open_store(Retention(max_turns=2))
    await commit_many(store, 5)
    await store.commit(new_turn("r6", 5, turns={2: b"too old", 4: b"leaving", 5: b"changed", 6: b"turn 6"}))
    assert await store.read_turns("ctx", range(1, 7)) == {5: b"changed", 6: b"turn 6"}


async def test_those_turns_are_read_that_exist(store: ContextStore) -> None:
    await commit_many(store, 5)
    assert await store.read_turns("ctx", [4, 2, 99, 0, -1]) == {4: b"turn 4", 2: b"turn 2"}
    assert await store.read_turns("ctx", []) == {}
    assert await store.read_turns("unknown", [1]) == {}


async def test_peek_shows_the_context_and_changes_nothing(store: ContextStore) -> None:
    assert await store.peek("ctx", 5) is None
    await load(store, "r1", attempt="a")
    assert await store.peek("ctx", 5) is None
    await commit_many(store, 3)
    await load(store, "r4", attempt="a", epoch=EPOCH)
    for _ in range(3):
        assert await store.peek("ctx", 2) == Loaded(3, b"main 3", {2: b"turn 2", 3: b"turn 3"}, None, 1)
    assert (await load(store, "r4", attempt="a", epoch=EPOCH)).starts == 1


async def test_a_deleted_context_is_gone_with_its_replies_and_its_epoch(store: ContextStore) -> None:
    await load(store, "request 1", epoch=EPOCH + 1)
    await commit_many(store, 2)
    assert await store.delete("ctx") is True
    assert await store.delete("ctx") is False
    assert await store.peek("ctx", 5) is None
    assert await load(store, "request 1", epoch=EPOCH) == Loaded(0, None, {}, None, 1)


async def test_deleting_a_context_fences_the_turn_that_was_running(store: ContextStore) -> None:
    await commit_many(store, 2)
    loaded = await load(store, "r3")
    await store.delete("ctx")
    with pytest.raises(VersionConflict):
        await store.commit(new_turn("r3", loaded.version))


async def test_awkward_ids_do_not_collide(store: ContextStore) -> None:
    for ctx_id in AWKWARD_IDS:
        await store.commit(Turn(ctx_id, ctx_id, 0, ctx_id.encode(), {1: ctx_id.encode()}, ctx_id.encode()))
    for ctx_id in AWKWARD_IDS:
        content = ctx_id.encode()
        loaded = await load(store, ctx_id, ctx_id=ctx_id, attempt=ctx_id)
        assert loaded == Loaded(1, content, {1: content}, content, 0)
    for ctx_id in AWKWARD_IDS:
        assert await store.delete(ctx_id) is True


async def test_request_ids_do_not_collide_with_each_other_or_with_anything_kept(store: ContextStore) -> None:
    request_ids = [*AWKWARD_IDS, "h", "v", "e", "m", "r", "t:1", "d:1", "i:v", "1", "01", "o0", "r" * 255]
    for version, request_id in enumerate(request_ids):
        assert (await load(store, request_id)).starts == 1
        await store.commit(new_turn(request_id, version, reply=request_id.encode()))
    for request_id in request_ids:
        assert (await load(store, request_id)).reply == request_id.encode()


async def test_a_context_without_a_turn_for_the_ttl_is_forgotten(open_store: OpenStore) -> None:
    store = await open_store(Retention(ttl_seconds=1))
    await commit_many(store, 1)
    deadline = time.monotonic() + 10
    while await store.peek("ctx", 1) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await load(store, "request 1") == Loaded(0, None, {}, None, 1)


async def test_a_closed_store_may_be_closed_again(store: ContextStore) -> None:
    await store.close()
    await store.close()


async def test_the_requests_of_a_context_are_remembered_and_told_the_oldest_first(open_store: OpenStore) -> None:
    store = await open_store(Retention(outbox=150))
    assert await store.read_outbox("ctx") == Outbox()
    for number in range(200):
        await store.commit(new_turn(f"r{number}", number, reply=b"reply %d" % number))
    await load(store, "r200")
    outbox = await store.read_outbox("ctx")
    assert list(outbox.replies.items()) == [(f"r{number}", b"reply %d" % number) for number in range(50, 200)]
    assert outbox.started == "r200"
    await store.delete("ctx")
    assert await store.read_outbox("ctx") == Outbox()
