"""What only the memory store can show: expiry by an injected clock."""

import pytest

from worker.stores import Retention, Turn
from worker.stores.memory import MemoryStore

TTL = 100


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(Retention(ttl_seconds=TTL), clock=clock)


def a_turn(ctx_id: str) -> Turn:
    return Turn(ctx_id, "r1", 0, b"main", {1: b"turn"}, b"reply")


async def test_a_context_lives_for_the_ttl_and_no_longer(store: MemoryStore, clock: Clock) -> None:
    await store.commit(a_turn("ctx"))
    clock.now = TTL - 0.1
    assert await store.peek("ctx", 1) is not None
    clock.now = TTL
    assert await store.peek("ctx", 1) is None
    assert await store.delete("ctx") is False


async def test_a_load_and_a_commit_renew_the_ttl_but_a_peek_does_not(store: MemoryStore, clock: Clock) -> None:
    await store.load("ctx", "r1", epoch=1, attempt="a", history=1)
    clock.now = 60
    await store.commit(a_turn("ctx"))
    clock.now = 120
    await store.load("ctx", "r2", epoch=1, attempt="a", history=1)
    clock.now = 200
    assert await store.peek("ctx", 1) is not None
    clock.now = 220
    assert await store.peek("ctx", 1) is None


async def test_an_expired_context_is_fenced_like_a_deleted_one(store: MemoryStore, clock: Clock) -> None:
    await store.load("ctx", "r1", epoch=9, attempt="a", history=1)
    clock.now = TTL
    assert (await store.load("ctx", "r1", epoch=1, attempt="b", history=1)).starts == 1


async def test_expired_contexts_take_no_memory(store: MemoryStore, clock: Clock) -> None:
    for number in range(1000):
        clock.now = number
        await store.commit(a_turn(f"ctx {number}"))
    assert len(store._contexts) == TTL
