"""Every script may be repeated: carried out with its answer lost, and called again, it leaves what one call leaves.

What is here is so of every script there is, for a new one without its case fails.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.integration.redis_probes import EPOCH, Link, load, lose_answer, numbered_turn, opened, proxied
from worker.stores import Edit
from worker.stores.redis import RedisStore

Call = Callable[[RedisStore], Awaitable[Any]]

EDIT = Edit("ctx", "edit", version=1, revision=0, new_version=3, main=b"edited", turns={1: b"edited too", 3: b"edited"})
SCRIPTS: Mapping[str, Call] = {
    "announce": lambda store: store.announce("worker 2", b"me", 60),
    "change_plan": lambda store: store.change_plan(b"plan 1", b"plan 2"),
    "claim": lambda store: store.claim(),
    "commit": lambda store: store.commit(numbered_turn(2)),
    "delete": lambda store: store.delete("ctx"),
    "edit": lambda store: store.edit(EDIT),
    "forget_start": lambda store: store.forget_start("ctx", "request 00000002", "a"),
    "living": lambda store: store.living(),
    "load": lambda store: store.load("ctx", "request 00000002", epoch=EPOCH, attempt="b", history=5, counted=9),
    "note_passed": lambda store: store.note_passed("queue 2"),
    "outbox": lambda store: store.read_outbox("ctx"),
    "peek": lambda store: store.peek("ctx", 5),
    "read_plan": lambda store: store.read_plan(),
}
COMMANDS: Mapping[str, Call] = {
    "withdraw": lambda store: store.withdraw("worker 1"),
    "read_turns": lambda store: store.read_turns("ctx", [1]),
}
OTHER_ANSWERS = {
    "claim",  # the number of the lost answer stays unused
    "delete",  # there is nothing any more
}


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via, patience=0.5) as store:
        yield proxy, store


async def prepare(store: RedisStore) -> None:
    """One turn, another one started, one worker, a plan with one queue passed."""
    await store.commit(numbered_turn(1))
    await load(store, "request 00000002", attempt="a")
    await store.announce("worker 1", b"first", 60)
    await store.change_plan(None, b"plan 1")
    await store.note_passed("queue 1")


async def contents(client: Redis, store: RedisStore) -> dict[str, Any]:
    """All that the namespace holds, without its name and without what is a time."""
    held: dict[str, Any] = {}
    async for key in client.scan_iter(match=f"{store._namespace}:*"):
        name = key.decode().removeprefix(f"{store._namespace}:")
        if name == "epoch":
            continue
        fields: dict[Any, Any] = await client.hgetall(key)
        held[name] = {
            field: re.sub(rb"^\d{13}", b"", value) if name == "workers" else value for field, value in fields.items()
        }
    return held


def test_every_script_has_its_case() -> None:
    scripts = {file.name.removesuffix(".lua") for file in files("worker.stores").joinpath("scripts").iterdir()}
    assert scripts - {"head"} == SCRIPTS.keys()  # which is what others begin with


@pytest.mark.parametrize("name", [*SCRIPTS, *COMMANDS])
async def test_a_call_repeated_after_a_lost_answer_leaves_what_one_call_leaves(
    name: str, link: Link, redis_url: str
) -> None:
    call = {**SCRIPTS, **COMMANDS}[name]
    _, store = link
    async with opened(redis_url) as other, Redis.from_url(redis_url) as client:
        await prepare(store)
        await prepare(other)
        before = await contents(client, store)
        once = await call(other)

        async def lost() -> object:
            return await call(store)

        await lose_answer(link, lost)
        carried_out = await contents(client, store)
        again = await call(store)
        left = await contents(client, other)
        assert carried_out == left
        assert await contents(client, store) == left
        assert before != left or name in ("claim", "living", "outbox", "peek", "read_plan", "read_turns")
    if name not in OTHER_ANSWERS:
        assert again == once
