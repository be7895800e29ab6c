"""What every store does with the list of living workers."""

import pytest

from tests.conformance.broker_probes import eventually
from worker.stores import ContextStore

pytest_plugins = ["tests.conformance.store_fixtures"]


async def test_a_worker_that_announces_itself_is_told_who_else_lives(store: ContextStore) -> None:
    assert await store.announce("one", b"first", 60) == {"one": b"first"}
    assert await store.announce("two", b"second", 60) == {"one": b"first", "two": b"second"}


async def test_what_a_worker_said_last_counts(store: ContextStore) -> None:
    await store.announce("one", b"before", 60)
    assert await store.announce("one", b"after", 60) == {"one": b"after"}


async def test_a_worker_that_is_silent_for_its_time_is_gone(store: ContextStore) -> None:
    await store.announce("short", b"", 0.05)

    async def is_gone() -> bool:
        return "short" not in await store.announce("long", b"", 60)

    await eventually(is_gone, "the silent worker is gone")


async def test_who_lives_is_told_without_announcing_anybody(store: ContextStore) -> None:
    assert await store.living() == {}
    await store.announce("one", b"first", 60)
    await store.announce("short", b"", 0.05)

    async def is_gone() -> bool:
        return await store.living() == {"one": b"first"}

    await eventually(is_gone, "only who lives is told")


async def test_a_worker_that_withdraws_is_gone_at_once(store: ContextStore) -> None:
    await store.announce("one", b"", 60)
    for _ in range(2):
        await store.withdraw("one")
    assert await store.announce("two", b"", 60) == {"two": b""}


@pytest.mark.parametrize("info", [b"", b"\x00\xff", b"0" * 20, "Grüße".encode()])
async def test_what_a_worker_says_comes_back_as_it_was(store: ContextStore, info: bytes) -> None:
    assert await store.announce("name with spaces ☎", info, 60) == {"name with spaces ☎": info}
