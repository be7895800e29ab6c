"""Resharding on the embedded servers, interrupted before every single call it makes to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from interfaces.brokers import Outgoing, Properties, QueueState
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import BrokerUnavailable, MisuseError, StoreUnavailable
from interfaces.markers import marker
from interfaces.topology import SLOTS, Topology, slot
from tests.conformance.broker_probes import Inbox, eventually
from worker import Settings, Worker, membership, resharding
from worker.generations import Generations
from worker.plan import Generation, Plan
from worker.records import read_context
from worker.resharding import Progress, Resharding, Step
from worker.stores import Retention
from worker.stores.memory import MemoryStore

BEFORE = Topology("ns", shards=2)
AFTER = Topology("ns", shards=3, generation=2)
CONTEXTS = [f"ctx-{number}" for number in range(12)]
HOLD = "hold"
CHANGING = ("declare", "move_slots", "publish", "delete_queue", "change_plan", "note_passed")


class Interruption:
    """Fails one of the calls that change something, before or after it has had its effect."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after


class Fragile:
    """A server object whose changing calls may be interrupted."""

    def __init__(self, server: Any, interruption: Interruption, error: type[Exception]) -> None:
        self._server = server
        self._interruption = interruption
        self._error = error

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._server, name)
        if name not in CHANGING:
            return method

        async def call(*args: Any) -> Any:
            self._interruption.left -= 1
            if self._interruption.left == 0 and not self._interruption.after:
                raise self._error("interrupted before it had an effect")
            result = await method(*args)
            if self._interruption.left == 0:
                raise self._error("interrupted after it had its effect")
            return result

        return call


gate = asyncio.Event()


async def note(ctx: Context) -> str:
    if ctx.last_request.text == HOLD:
        await gate.wait()
    ctx.misc["seen"] = [*ctx.misc.get("seen", []), ctx.last_request.text]
    return "noted"


class Bench:
    """A worker on embedded servers, and the operator's connections to them."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.store = MemoryStore(Retention())
        self.broker = MemoryBroker(self.server)
        self.sent: dict[str, list[str]] = {ctx_id: [] for ctx_id in CONTEXTS}

    async def send_to_all(self, client: BrokerClient) -> None:
        for ctx_id in CONTEXTS:
            text = f"{ctx_id}/{len(self.sent[ctx_id])}"
            self.sent[ctx_id].append(text)
            await client.send(text, ctx_id)

    async def seen(self) -> dict[str, list[str]]:
        found = {}
        for ctx_id in CONTEXTS:
            loaded = await self.store.peek(ctx_id, 1)
            if loaded is not None:
                found[ctx_id] = read_context(ctx_id, loaded.version, loaded.main, loaded.turns).misc["seen"]
        return found

    async def all_applied(self) -> None:
        async def applied() -> bool:
            return await self.seen() == self.sent

        await eventually(applied, "every request is applied, in order")


@asynccontextmanager
async def working(bench: Bench, **settings: int) -> AsyncIterator[BrokerClient]:
    """A worker runs and a client may send, while inside."""
    given = Settings.model_validate({"namespace": "ns", "shards": 2, **settings})
    worker = Worker(note, given, broker=MemoryBroker(bench.server), store=bench.store)
    running = asyncio.create_task(worker.run())
    await worker.wait_ready()
    await bench.broker.open()
    async with BrokerClient(namespace="ns", broker=MemoryBroker(bench.server)) as client:
        yield client
    worker.stop()
    await running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is late inside one process; and every slot counts as a step of its own to be interrupted at."""
    monkeypatch.setattr(resharding, "STRAGGLER_SECONDS", 0.0)
    monkeypatch.setattr(resharding, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(resharding, "SLOTS_A_STEP", 256)
    monkeypatch.setattr(membership, "BEAT_SECONDS", 0.02)


@pytest.mark.parametrize("after", [False, True])
async def test_it_may_be_interrupted_before_and_after_each_of_its_steps(after: bool) -> None:
    calls = 0
    while True:
        calls += 1
        bench = Bench()
        interruption = Interruption(calls, after=after)
        fragile_broker: Any = Fragile(bench.broker, interruption, BrokerUnavailable)
        fragile_store: Any = Fragile(bench.store, interruption, StoreUnavailable)
        async with working(bench) as client:
            await bench.send_to_all(client)
            with suppress(BrokerUnavailable, StoreUnavailable):
                await Resharding(fragile_broker, fragile_store, BEFORE).run(3)
            await bench.send_to_all(client)
            plan = await Resharding(bench.broker, bench.store, BEFORE).run(3)
            await bench.send_to_all(client)
            await bench.all_applied()
        assert plan == Plan(current=Generation(number=2, shards=3))
        assert [await bench.broker.queue_state(queue) for queue in BEFORE.shard_queues] == [None, None]
        if interruption.left > 0:
            break
    assert calls > 10


async def test_a_new_queue_is_not_consumed_while_a_turn_of_an_old_one_that_fed_it_runs() -> None:
    bench = Bench()
    held, free = (next(name for name in CONTEXTS if slot(name) % 2 == shard) for shard in (0, 1))
    gate.clear()
    steps: list[Progress] = []
    async with working(bench) as client:
        await client.send(HOLD, held)
        changing = asyncio.create_task(Resharding(bench.broker, bench.store, BEFORE, steps.append).run(4))
        await eventually(_has(steps, Step.DRAIN), "the slots have moved")
        await client.send("next", held)
        await client.send("other", free)
        await eventually(_seen(bench, free, ["other"]), "a queue that the turn's queue did not feed is consumed")
        assert held not in await bench.seen()
        assert not changing.done()
        gate.set()
        await eventually(_seen(bench, held, [HOLD, "next"]), "both are applied in order")
        await changing


def _has(steps: list[Progress], step: Step) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return any(progress.step is step for progress in steps)

    return has


def _seen(bench: Bench, ctx_id: str, texts: list[str]) -> Callable[[], Awaitable[bool]]:
    async def seen() -> bool:
        return (await bench.seen()).get(ctx_id) == texts

    return seen


async def test_why_a_slot_never_leads_to_two_queues() -> None:
    """Deduplication would not be enough: whoever moves slots may be stopped in between for longer than it reaches back.

    Here the slot leads to both queues, as it would after a `bind` that was not yet followed by its `unbind`.
    """
    bench = Bench()
    bench.store = MemoryStore(Retention(outbox=4))
    async with working(bench, outbox=4, prefetch=4) as client:
        await bench.broker.declare(AFTER)
        bench.server.bind(AFTER.queue_of(slot("ctx-0")), BEFORE.requests_exchange, str(slot("ctx-0")))
        sent = [str(number) for number in range(10)]
        for text in sent:
            await client.send(text, "ctx-0")
        await eventually(_seen(bench, "ctx-0", sent), "each request is applied once")
        await Resharding(bench.broker, bench.store, BEFORE).run(3)
        await eventually(_seen(bench, "ctx-0", sent + sent), "and, from the new queue, once more")


async def test_one_change_at_a_time() -> None:
    bench = Bench()
    await bench.broker.open()
    await bench.broker.apply(BEFORE)
    plan = Plan.of(BEFORE).moved_to(3)
    await bench.store.change_plan(None, plan.write())
    with pytest.raises(MisuseError, match=r"from 2 to 3 shards is under way.*reshard --shards 3"):
        await Resharding(bench.broker, bench.store, BEFORE).run(4)


async def test_two_operators_who_begin_at_once_do_not_both_change_the_plan() -> None:
    bench = Bench()
    await bench.broker.open()
    outcomes = await asyncio.gather(
        *(Resharding(bench.broker, bench.store, BEFORE)._begin(shards, None) for shards in (3, 4)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, MisuseError) for outcome in outcomes) == 1


async def test_the_number_in_use_is_no_change() -> None:
    bench = Bench()
    await bench.broker.open()
    assert await Resharding(bench.broker, bench.store, BEFORE).run(2) == Plan.of(BEFORE)
    assert await bench.broker.queue_state(AFTER.shard_queue(0)) is None


async def test_another_prefetch_is_a_change_like_another_number_of_shards() -> None:
    bench = Bench()
    await bench.broker.open()
    async with working(bench, outbox=8, prefetch=4):
        assert (await Resharding(bench.broker, bench.store, BEFORE).run(2, 4)).current.number == 1
        plan = await Resharding(bench.broker, bench.store, BEFORE).run(2, 8)
        assert plan == Plan(current=Generation(number=2, shards=2, prefetch=8))


async def test_a_request_that_comes_to_an_old_queue_after_its_marker_is_published_again() -> None:
    bench = Bench()
    await bench.broker.open()
    await bench.broker.apply(BEFORE)
    ctx_id = "ctx-0"
    late = Outgoing(
        BEFORE.requests_exchange, str(slot(ctx_id)), b"late", Properties(message_id="late", delivery_mode=2)
    )
    await bench.broker.publish(marker(BEFORE.queue_of(slot(ctx_id)), AFTER))
    await bench.broker.publish(late)
    await bench.broker.declare(AFTER)
    await bench.broker.move_slots(range(SLOTS), BEFORE, AFTER)
    await bench.store.change_plan(None, Plan.of(BEFORE).moved_to(3).retiring().write())
    resharding_ = Resharding(bench.broker, bench.store, BEFORE)
    await resharding_.run(3)
    inbox = Inbox()
    await bench.broker.consume(AFTER.queue_of(slot(ctx_id)), 10, inbox)
    [delivery] = await inbox.wait_for(1)
    assert (delivery.body, delivery.properties) == (late.body, late.properties)
    assert resharding_.stragglers == 1


async def test_an_old_queue_that_somebody_still_consumes_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resharding, "RELEASE_SECONDS", 0.05)
    bench = Bench()
    await bench.broker.open()
    await bench.broker.apply(BEFORE)
    await bench.store.change_plan(None, Plan.of(BEFORE).moved_to(3).retiring().write())
    await bench.broker.consume(BEFORE.shard_queue(1), 1, Inbox())
    with pytest.raises(BrokerUnavailable, match=r"g1\.001.*still consumed"):
        await Resharding(bench.broker, bench.store, BEFORE).run(3)
    assert await bench.broker.queue_state(BEFORE.shard_queue(1)) is not None


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_worker_that_starts_after_a_change_was_only_begun_moves_nothing(generation: int) -> None:
    bench = Bench()
    before = replace(BEFORE, generation=generation)
    await bench.broker.open()
    await bench.broker.apply(before)
    await bench.store.change_plan(None, Plan.of(before).moved_to(3).write())
    async with working(bench) as client:
        await bench.send_to_all(client)
        await bench.all_applied()
        assert [await bench.broker.queue_state(queue) for queue in before.shard_queues] == [QueueState(0, 1)] * 2


@pytest.mark.parametrize("moving", [False, True])
async def test_a_plan_that_the_store_has_lost_is_found_on_the_broker(moving: bool) -> None:
    bench = Bench()
    async with working(bench) as client:
        await Resharding(bench.broker, bench.store, BEFORE).run(3)
        if moving:
            later = replace(AFTER, shards=5, generation=3)
            await bench.broker.declare(later)
            await bench.broker.move_slots(range(300), AFTER, later)
        bench.store._plan = None
        await bench.send_to_all(client)
        plan = await Resharding(bench.broker, bench.store, BEFORE).run(5)
        assert plan == Plan(current=Generation(number=3, shards=5))
        await bench.send_to_all(client)
        await bench.all_applied()


async def test_a_marker_where_nothing_changes_is_taken_away_and_means_nothing() -> None:
    bench = Bench()
    async with working(bench) as client:
        queue = BEFORE.queue_of(slot("ctx-0"))
        await bench.broker.publish(marker(queue, AFTER))
        await bench.send_to_all(client)
        await bench.all_applied()
        assert await bench.store.read_plan() == (Plan.of(BEFORE).write(), frozenset())
        state = await bench.broker.queue_state(queue)
    assert state is not None
    assert state.messages == 0


async def test_a_worker_repeats_its_note_where_the_store_was_set_back() -> None:
    bench = Bench()
    generations = Generations(bench.broker, bench.store, BEFORE)
    await bench.broker.open()
    await bench.store.change_plan(None, Plan.of(BEFORE).moved_to(3).write())
    await generations.passed(BEFORE.shard_queue(0))
    bench.store._passed.clear()
    await generations.refresh()
    assert (await bench.store.read_plan())[1] == {BEFORE.shard_queue(0)}


def test_what_may_be_consumed_follows_from_what_is_passed() -> None:
    plan = Plan.of(Topology("ns", shards=2)).moved_to(4)
    topology = Topology("ns")
    old, new = Topology("ns", 2).shard_queues, Topology("ns", 4, 2).shard_queues
    assert plan.consumable(topology, ()) == old
    assert plan.consumable(topology, (old[1],)) == [*old, new[1], new[3]]
    assert plan.consumable(topology, old) == old + new
    assert plan.retiring().consumable(topology, ()) == new
    assert plan.settled().consumable(topology, ()) == new
