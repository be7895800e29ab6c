"""A worker has its contexts in hand between turns, and a load never gives anything else than what Redis has.

Whatever comes between two turns of a context here (another worker, an edit, a deletion, an answer that is lost): what
is loaded is compared with what somebody reads who has nothing in hand.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interfaces.errors import StoreUnavailable, TurnAbandoned, VersionConflict
from interfaces.telemetry import Telemetry
from tests.conformance.store_probes import delete_namespace
from worker.stores import Edit, Loaded, Retention, Turn
from worker.stores.redis import RedisStore

HISTORY, MAX_TURNS = 4, 6
EXAMPLES = 300


class Process:
    """A worker's store, its epoch, and how its loads were answered."""

    def __init__(self, url: str, namespace: str, **options: Any) -> None:
        telemetry = Telemetry()
        self.loads = telemetry.metrics.context_loads_total
        self.store = RedisStore(url, namespace, Retention(4, MAX_TURNS), telemetry=telemetry, **options)
        self.epoch = 0

    async def take_over(self) -> None:
        """What a change of who consumes the queue is for the store."""
        self.epoch = await self.store.claim()

    async def load(self, ctx_id: str, request_id: str) -> Loaded:
        return await self.store.load(ctx_id, request_id, epoch=self.epoch, attempt="a", history=HISTORY)

    async def turn(self, ctx_id: str, request_id: str) -> Loaded:
        """Load and commit; what was loaded."""
        loaded = await self.load(ctx_id, request_id)
        await self.commit(ctx_id, request_id, loaded)
        return loaded

    async def commit(self, ctx_id: str, request_id: str, loaded: Loaded, *others: int) -> None:
        new = {n: f"{request_id} at {n}".encode() for n in (*others, loaded.version + 1)}
        main, reply = f"main of {request_id}".encode(), f"reply to {request_id}".encode()
        await self.store.commit(Turn(ctx_id, request_id, loaded.version, main, new, reply, loaded.revision))


@asynccontextmanager
async def opened(url: str, *options: dict[str, Any]) -> AsyncIterator[list[Process]]:
    """Processes on one namespace, one with each of the options."""
    namespace = f"test-{uuid.uuid4().hex}"
    processes = [Process(url, namespace, **each) for each in options]
    async with AsyncExitStack() as stack:
        for process in processes:
            stack.push_async_callback(process.store.close)
            await process.store.open()
            await process.take_over()
        yield processes
    await delete_namespace(url, namespace)


def seen(loaded: Loaded | None) -> tuple[object, ...]:
    assert loaded is not None
    return loaded.version, loaded.revision, loaded.main, dict(loaded.turns)


async def test_a_context_is_read_once_and_then_in_hand(redis_url: str) -> None:
    async with opened(redis_url, {}) as [worker]:
        for number in range(12):
            loaded = await worker.turn("ada", f"r{number}")
            assert loaded.version == number
            assert list(loaded.turns) == list(range(max(1, number - HISTORY + 1), number + 1))
        assert worker.loads == {"redis": 1, "cache": 11}


async def test_a_cache_of_no_bytes_keeps_nothing(redis_url: str) -> None:
    async with opened(redis_url, {"cache_bytes": 0}) as [worker]:
        for number in range(5):
            await worker.turn("ada", f"r{number}")
        assert worker.loads == {"redis": 5, "cache": 0}


async def test_a_context_made_anew_at_the_same_version_is_not_taken_for_the_one_in_hand(redis_url: str) -> None:
    async with opened(redis_url, {}) as [worker]:
        for content in (b"old", b"new"):
            await worker.store.edit(Edit("ada", uuid.uuid4().hex, 0, 0, 2, content, {2: content}))
            assert seen(await worker.load("ada", "r")) == (2, 1, content, {2: content})
            await worker.store.delete("ada")


async def test_a_turn_that_the_worker_before_still_commits_is_not_missed(redis_url: str) -> None:
    """It had loaded before it lost the queue. The epoch that is noted stays, but the version moves."""
    async with opened(redis_url, {}, {}) as [before, after]:
        loaded = await before.load("ada", "r1")
        await after.load("ada", "r2")
        await before.commit("ada", "r1", loaded)
        assert seen(await after.load("ada", "r2")) == (1, 0, b"main of r1", {1: b"r1 at 1"})


async def test_a_load_whose_answer_is_lost_leaves_nothing_in_hand(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It notes its epoch in the context made anew: the epoch alone would no longer tell this from the one in hand."""
    async with opened(redis_url, {}) as [worker]:
        await worker.store.edit(Edit("ada", "first", 0, 0, 2, b"old", {2: b"old"}))
        await worker.load("ada", "r")
        await worker.store.delete("ada")
        with monkeypatch.context() as patch, losing_answers(worker.store, patch):
            await worker.load("ada", "r")
        await worker.store.edit(Edit("ada", "second", 0, 0, 2, b"new", {2: b"new"}))
        assert seen(await worker.load("ada", "r")) == (2, 1, b"new", {2: b"new"})


def losing_answers(store: RedisStore, patch: pytest.MonkeyPatch) -> Any:
    """Redis does what it is asked, and nobody hears of it."""
    script = store._pipeline.script

    async def lost(*arguments: Any, **options: Any) -> Any:
        await script(*arguments, **options)
        raise StoreUnavailable("the answer was lost")

    patch.setattr(store._pipeline, "script", lost)
    return suppress(StoreUnavailable)


STEPS = st.tuples(
    st.sampled_from(
        [*["turn"] * 6, "older", "load", "take over", "edit", "delete", "recreate", "lost load", "lost commit"]
    ),
    st.sampled_from([0, 0, 0, 1]),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=3, max_size=20))
def test_whatever_comes_between_a_load_gives_what_redis_has(bench: "Bench", steps: list[tuple[str, int]]) -> None:
    bench.run(steps)


class Bench:
    """Two workers that take over from one another, and an operator with nothing in hand, on one context an example."""

    def __init__(self, processes: list[Process], runner: asyncio.Runner) -> None:
        *self.workers, self.operator = processes
        self._runner = runner
        self._numbers = count(1)

    def run(self, steps: list[tuple[str, int]]) -> None:
        self._runner.run(self._steps(f"ctx-{next(self._numbers)}", steps))

    async def _steps(self, ctx_id: str, steps: list[tuple[str, int]]) -> None:
        for what, which in steps:
            with suppress(TurnAbandoned, VersionConflict):
                await self._step(ctx_id, what, self.workers[which])

    async def _step(self, ctx_id: str, what: str, worker: Process) -> None:
        request_id = f"r{next(self._numbers)}"
        store = self.operator.store
        now = await store.peek(ctx_id, HISTORY)
        version, revision = (0, 0) if now is None else (now.version, now.revision)
        if what == "take over":
            await worker.take_over()
        elif what == "edit":
            after = version + (worker is self.workers[1])
            edited = request_id.encode()
            await store.edit(Edit(ctx_id, request_id, version, revision, after, edited, {version: edited}))
        elif what in {"delete", "recreate"}:
            await store.delete(ctx_id)
            if what == "recreate":
                content = request_id.encode()
                await store.edit(Edit(ctx_id, request_id, 0, 0, version, content, {version: content}))
        elif what.startswith("lost"):
            loaded = await worker.load(ctx_id, request_id) if what == "lost commit" else None
            with pytest.MonkeyPatch.context() as patch, losing_answers(worker.store, patch):
                if loaded is None:
                    await worker.load(ctx_id, request_id)
                else:
                    await worker.commit(ctx_id, request_id, loaded)
        else:
            loaded = await worker.load(ctx_id, request_id)
            assert seen(loaded) == ((0, 0, None, {}) if now is None else seen(now))
            if what != "load":
                others = (max(0, version - 1),) if what == "older" else ()
                await worker.commit(ctx_id, request_id, loaded, *others)


@pytest.fixture(scope="module")
def bench(redis_url: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        stores = opened(redis_url, {}, {}, {"cache_bytes": 0})
        bench = Bench(runner.run(stores.__aenter__()), runner)
        yield bench
        runner.run(stores.__aexit__(None, None, None))
        hits = sum(worker.loads["cache"] for worker in bench.workers)
        assert hits > EXAMPLES, "it is what is in hand that was tried"
