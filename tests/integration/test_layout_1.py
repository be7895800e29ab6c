"""Contexts as workers stored them before their heads were one field (layout 1, docs/decisions/0029): they go on as if
they had always been stored as they are now, and workers that know no other layout are kept out of them.

What such a worker stores and is answered here is by its own scripts (`tests/services/layout_1`).
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from interfaces.errors import StoreRefused, StoreUnavailable, TurnAbandoned, VersionConflict
from tests.conformance.store_probes import delete_namespace
from tests.services.layout_1 import LAYOUT_1
from worker.stores import Edit, Loaded, Retention, Turn
from worker.stores.pipelining import Script
from worker.stores.redis import RedisStore

EPOCH = 1_700_000_000_000_000
RETENTION = Retention(outbox=4, max_turns=6)
HISTORY = 4


def of_layout_1(store: RedisStore) -> RedisStore:
    """The store of a worker that knows layout 1 alone. What it read of an outbox is not here."""
    call = store._pipeline.script

    async def older(script: Script, *arguments: bytes, **options: Any) -> Any:
        return await call(LAYOUT_1[script.name], *arguments, **options)

    vars(store._pipeline)["script"] = older
    return store


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """The store of an older worker and that of a worker of today, on one namespace."""
    namespace = f"test-{uuid.uuid4().hex}"
    older, newer = (RedisStore(url, namespace, RETENTION) for _ in range(2))
    try:
        await older.open()
        await newer.open()
        yield of_layout_1(older), newer
    finally:
        await older.close()
        await newer.close()
        await delete_namespace(url, namespace)


async def load(store: RedisStore, request_id: str, ctx_id: str = "ada", **how: Any) -> Loaded:
    return await store.load(ctx_id, request_id, **{"epoch": EPOCH, "attempt": "a", "history": HISTORY, **how})


def turn_of(loaded: Loaded, request_id: str, ctx_id: str = "ada", *others: int) -> Turn:
    new = {n: f"{request_id} at {n}".encode() for n in (*others, loaded.version + 1)}
    main, reply = f"main of {request_id}".encode(), f"reply to {request_id}".encode()
    return Turn(ctx_id, request_id, loaded.version, main, new, reply, loaded.revision)


async def turn(store: RedisStore, request_id: str) -> None:
    await store.commit(turn_of(await load(store, request_id), request_id))


async def test_a_request_committed_in_layout_1_is_answered_with_its_reply(redis_url: str) -> None:
    async with opened(redis_url) as (older, newer):
        for number in range(6):
            await turn(older, f"r{number}")
        assert (await load(newer, "r5")).reply == b"reply to r5"
        loaded = await load(newer, "r6")
        assert (loaded.version, loaded.main, loaded.turns[6]) == (6, b"main of r5", b"r5 at 6")
        assert (await load(newer, "r3")).reply == b"reply to r3"
        assert await newer.commit(turn_of(loaded, "r4")) == b"reply to r4"
        assert list((await newer.read_outbox("ada")).replies) == ["r2", "r3", "r4", "r5"]


async def test_starts_counted_in_layout_1_stay_counted(redis_url: str) -> None:
    async with opened(redis_url) as (older, newer):
        for attempt in ("a", "b"):
            await load(older, "r0", attempt=attempt, counted=9)
        assert (await newer.read_outbox("ada")).started == "r0"
        assert (await load(newer, "r0", attempt="b", counted=9)).starts == 2
        assert (await load(newer, "r0", attempt="c", counted=9)).starts == 3


async def test_an_epoch_noted_in_layout_1_refuses_those_before_it(redis_url: str) -> None:
    async with opened(redis_url) as (older, newer):
        await load(older, "r0", epoch=EPOCH + 1)
        with pytest.raises(TurnAbandoned, match=f"seen epoch {EPOCH + 1}, this one is {EPOCH}"):
            await load(newer, "r0")


async def test_to_look_at_a_context_leaves_it_in_layout_1(redis_url: str) -> None:
    async with opened(redis_url) as (older, newer):
        await turn(older, "r0")
        await load(older, "r1")
        before = await everything(newer, redis_url)
        looked = await newer.peek("ada", HISTORY)
        outbox = await newer.read_outbox("ada")
        assert await everything(newer, redis_url) == before
        assert looked is not None
        assert (looked.version, looked.main, looked.starts) == (1, b"main of r0", 1)
        assert (outbox.replies, outbox.started) == ({"r0": b"reply to r0"}, "r1")


async def test_a_reply_far_behind_the_oldest_after_an_import_is_found(redis_url: str) -> None:
    async with opened(redis_url) as (older, newer):
        await turn(older, "r0")
        await older.edit(Edit("ada", "e1", 1, 0, 5_000, b"imported", {}))
        await turn(older, "r1")
        assert list((await newer.read_outbox("ada")).replies) == ["r1"]
        assert (await load(newer, "r1")).reply == b"reply to r1"
        assert list((await newer.read_outbox("ada")).replies) == ["r1"]


@pytest.fixture(params=["made anew", "rewritten", "forgotten in the turn"])
async def stored_now(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """An older store and one of today, and a context `ada` as it is stored today."""
    async with opened(redis_url) as (older, newer):
        if request.param == "rewritten":
            await turn(older, "r0")
        loaded = await load(newer, "r1")
        if request.param == "forgotten in the turn":
            await newer.delete("ada")
            await newer.commit(turn_of(loaded, "r1"))
        yield older, newer


async def test_a_worker_of_layout_1_starts_no_turn_of_a_context_that_is_stored_as_now(
    stored_now: tuple[RedisStore, RedisStore], redis_url: str
) -> None:
    older, newer = stored_now
    before = await everything(newer, redis_url)
    with pytest.raises((StoreRefused, StoreUnavailable)):  # it waits for a minute if it was let load before, then ends
        await load(older, "r1", epoch=EPOCH + 1)
    assert await everything(newer, redis_url) == before


async def test_a_worker_of_layout_1_edits_no_context_that_is_stored_as_now(
    stored_now: tuple[RedisStore, RedisStore], redis_url: str
) -> None:
    older, newer = stored_now
    before = await everything(newer, redis_url)
    seen = await older.peek("ada", HISTORY)
    version, revision = (0, 0) if seen is None else (seen.version, seen.revision)
    for read in (version, 0, 1):
        with pytest.raises(VersionConflict):
            await older.edit(Edit("ada", "e", read, revision, max(0, read), b"edited", {0: b"edited"}))
    await older.forget_start("ada", "r1")
    assert await everything(newer, redis_url) == before


async def everything(store: RedisStore, url: str) -> dict[bytes, bytes]:
    """All fields of the context."""
    async with Redis.from_url(url) as redis:
        fields: dict[bytes, bytes] = await redis.hgetall(store.key("ada"))  # type: ignore[assignment]
        return fields


@pytest.mark.parametrize("committed", [0, 1])
async def test_a_worker_of_layout_1_commits_nothing_that_it_loaded_before(redis_url: str, committed: int) -> None:
    async with opened(redis_url) as (older, newer):
        for number in range(committed):
            await turn(older, f"r{number}")
        loaded = await load(older, "late")
        again = await load(newer, "late", attempt="b")
        with pytest.raises(VersionConflict):
            await older.commit(turn_of(loaded, "late"))
        await newer.commit(turn_of(again, "late"))
        with pytest.raises(VersionConflict):  # It would publish what it made, not what is committed under this request.
            await older.commit(turn_of(loaded, "late"))
        assert (await load(newer, "r9")).version == committed + 1


STEPS = st.sampled_from(
    [
        *["turn"] * 5,
        *("older turn", "load", "try again", "commit late", "repeat", "take back", "take all back"),
        *("take over", "fall back", "edit", "import", "delete"),
    ]
)


class Dialog:
    """One context, on which steps are taken by the store of one worker after the other; what each step saw."""

    def __init__(self, ctx_id: str, store: RedisStore) -> None:
        self.ctx_id, self.store = ctx_id, store
        self.seen: list[object] = []
        self._numbers = count()
        self._epoch = EPOCH
        self._last = "none"
        self._loaded: Loaded | None = None

    async def take(self, step: str) -> None:
        try:
            self.seen.append(await self._take(step, f"r{next(self._numbers)}"))
        except (TurnAbandoned, VersionConflict) as refused:
            self.seen.append(str(refused))

    async def _take(self, step: str, request_id: str) -> object:
        looked = await self.store.peek(self.ctx_id, 0)
        version, revision = (0, 0) if looked is None else (looked.version, looked.revision)
        match step:
            case "turn" | "older turn":
                loaded, self._last = await self._load(request_id), request_id
                others = (max(0, version - 2),) if step == "older turn" else ()
                return await self.store.commit(turn_of(loaded, request_id, self.ctx_id, *others))
            case "load" | "try again":
                self._last = request_id if step == "load" else self._last
                self._loaded = await self._load(self._last, attempt=request_id, counted=3)
                return self._seen(self._loaded)
            case "commit late":
                return self._loaded and await self.store.commit(turn_of(self._loaded, self._last, self.ctx_id))
            case "repeat":
                return self._seen(await self._load(self._last))
            case "take back" | "take all back":
                await self.store.forget_start(self.ctx_id, self._last, "a" if step == "take back" else None)
            case "take over" | "fall back":
                self._epoch += 1 if step == "take over" else -1
            case "delete":
                return await self.store.delete(self.ctx_id)
            case _:
                new = version + (70 if step == "import" else 0)
                await self.store.edit(Edit(self.ctx_id, request_id, version, revision, new, b"e", {new: b"e"}))
        return None

    async def _load(self, request_id: str, **how: Any) -> Loaded:
        return await load(self.store, request_id, self.ctx_id, epoch=self._epoch, **how)

    def _seen(self, loaded: Loaded) -> object:
        return loaded.version, loaded.revision, loaded.main, dict(loaded.turns), loaded.reply, loaded.starts

    async def left(self) -> object:
        """All that a store tells of the context."""
        looked = await self.store.peek(self.ctx_id, 100)
        turns = await self.store.read_turns(self.ctx_id, range(1_000))
        return looked and self._seen(looked), turns, await self.store.read_outbox(self.ctx_id)


class Bench:
    """An older store and one of today, for as many dialogs as there are examples."""

    def __init__(self, stores: tuple[RedisStore, RedisStore], url: str, runner: asyncio.Runner) -> None:
        self._older, self._newer = stores
        self._url, self._runner = url, runner
        self._numbers = count()

    def run(self, before: list[str], after: list[str]) -> None:
        self._runner.run(self._compare(before, after))

    async def _compare(self, before: list[str], after: list[str]) -> None:
        number = next(self._numbers)
        rewritten, always = Dialog(f"rewritten {number}", self._older), Dialog(f"always {number}", self._newer)
        for step in before:
            await rewritten.take(step)
            await always.take(step)
        rewritten.store = self._newer
        assert await rewritten.left() == await always.left()
        for step in after:
            await rewritten.take(step)
            await always.take(step)
        assert rewritten.seen == always.seen
        assert await rewritten.left() == await always.left()
        await self._require_same_fields(rewritten.ctx_id, always.ctx_id)

    async def _require_same_fields(self, *ctx_ids: str) -> None:
        """Where a turn was loaded since, nothing of layout 1 is left."""
        async with Redis.from_url(self._url) as redis:
            rewritten, always = [set(await redis.hkeys(self._newer.key(ctx_id))) for ctx_id in ctx_ids]
        assert b"h" not in rewritten or rewritten == always


@pytest.fixture(scope="module")
def bench(redis_url: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        stores = opened(redis_url)
        yield Bench(runner.run(stores.__aenter__()), redis_url, runner)
        runner.run(stores.__aexit__(None, None, None))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(STEPS, min_size=1, max_size=12), after=st.lists(STEPS, max_size=10))
def test_a_dialog_begun_in_layout_1_goes_on_as_one_that_never_was_in_it(
    bench: Bench, before: list[str], after: list[str]
) -> None:
    bench.run(before, after)
