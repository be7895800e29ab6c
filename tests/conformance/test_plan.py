"""What every store does with the plan of the request queues."""

from tests.conformance.store_probes import OpenStore
from worker.stores import ContextStore, Retention

pytest_plugins = ["tests.conformance.store_fixtures"]

NOTHING: frozenset[str] = frozenset()


async def test_there_is_no_plan_to_begin_with(store: ContextStore) -> None:
    assert await store.read_plan() == (None, NOTHING)


async def test_a_plan_is_changed_only_by_whoever_knows_the_one_before(store: ContextStore) -> None:
    assert await store.change_plan(None, b"one")
    assert not await store.change_plan(None, b"two")
    assert not await store.change_plan(b"two", b"three")
    assert await store.change_plan(b"one", b"two")
    assert await store.read_plan() == (b"two", NOTHING)


async def test_a_change_may_be_repeated_and_keeps_what_was_noted_since(store: ContextStore) -> None:
    assert await store.change_plan(None, b"one")
    await store.note_passed("queue")
    assert await store.change_plan(None, b"one")
    assert await store.read_plan() == (b"one", frozenset({"queue"}))


async def test_what_is_noted_goes_with_the_plan_it_was_noted_under(store: ContextStore) -> None:
    await store.change_plan(None, b"one")
    for queue in ("a", "b", "a"):
        await store.note_passed(queue)
    assert await store.read_plan() == (b"one", frozenset({"a", "b"}))
    await store.change_plan(b"one", b"two")
    assert await store.read_plan() == (b"two", NOTHING)


async def test_a_plan_belongs_to_all_stores_of_a_namespace(open_store: OpenStore) -> None:
    first = await open_store(Retention())
    await first.change_plan(None, b"one")
    assert await first.read_plan() == (b"one", NOTHING)
