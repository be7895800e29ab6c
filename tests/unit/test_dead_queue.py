"""Walks, replays and drops on the embedded broker: order, caps, failures in between, two at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from interfaces.brokers import Delivery, Outgoing
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.dead_letters import dead_letter
from interfaces.envelope import decode_body, encode_request
from interfaces.errors import BrokerUnavailable, PublishNacked, QueueTaken, Reason, RequestRejected
from interfaces.messages import Message
from interfaces.topology import Topology
from tests.conformance.broker_probes import Inbox, holds_messages
from tests.unit.deliveries import delivery
from worker import dead_queue
from worker.dead_letters import DeadLetter, new_id, read_dead_letter
from worker.dead_queue import Replay, Walk, drop, walking

TOPOLOGY = Topology("ns", shards=1)


class FailingBroker(MemoryBroker):
    """Refuses to publish some requests, as often as is said."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.refused: set[str] = set()
        self.published: list[str] = []

    async def publish(self, message: Outgoing) -> None:
        request_id = message.properties.message_id or ""
        if request_id in self.refused:
            raise PublishNacked("queue full")
        await super().publish(message)
        if message.exchange == TOPOLOGY.requests_exchange:
            self.published.append(request_id)


@pytest.fixture
async def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def broker(server: MemoryServer) -> AsyncIterator[FailingBroker]:
    broker = FailingBroker(server)
    await broker.open()
    await broker.apply(TOPOLOGY)
    yield broker
    await broker.close()


def letter(ctx_id: str, text: str, *, reason: Reason = Reason.HANDLER_FAILED, **properties: Any) -> Outgoing:
    request = encode_request(TOPOLOGY, Message(text), ctx_id, request_id=f"{ctx_id}-{text}")
    given_up = replace(
        delivery(request.body), properties=replace(request.properties, **properties), routing_key=request.routing_key
    )
    return dead_letter(TOPOLOGY, given_up, RequestRejected(reason, "x"), "w")


async def bury(broker: MemoryBroker, *letters: Outgoing) -> None:
    for each in letters:
        await broker.publish(each)


def every(letter: DeadLetter) -> bool:
    return True


def texts(deliveries: list[Delivery]) -> list[str]:
    return [f"{body.ctx_id}-{body.message.text}" for body in (decode_body(each.body) for each in deliveries)]


async def left_in(broker: MemoryBroker, queue: str) -> list[Delivery]:
    state = await broker.queue_state(queue)
    assert state is not None
    inbox = Inbox()
    channel = await broker.consume(queue, 1000, inbox)
    await inbox.wait_for(state.messages)
    await channel.close()
    return inbox.deliveries


async def test_a_walk_sees_all_in_order_and_leaves_all_in_order(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(20)))
    told: list[tuple[int, int]] = []
    async with walking(broker, TOPOLOGY, 100, lambda *progress: told.append(progress)) as walk:
        seen = [each async for each in walk]
    assert texts(seen) == [f"a-{number}" for number in range(20)] == texts(await left_in(broker, TOPOLOGY.dead))
    assert told == [(number, 20) for number in range(1, 21)]
    assert not walk.is_cut


@pytest.mark.parametrize(("most", "is_cut"), [(5, True), (19, True), (20, False), (21, False)])
async def test_a_walk_ends_with_what_it_may_hold(broker: FailingBroker, most: int, is_cut: bool) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(20)))
    async with walking(broker, TOPOLOGY, most) as walk:
        assert len([each async for each in walk]) == min(most, 20)
        assert (walk.is_cut, walk.total) == (is_cut, 20)


async def test_what_is_removed_makes_room_for_more(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(20)))
    replay = Replay(broker, TOPOLOGY, every)
    async with walking(broker, TOPOLOGY, 3) as walk:
        await replay.run(walk)
        assert not walk.is_cut
    assert [old for old, _ in replay.ids] == [f"a-{number}" for number in range(20)]


async def test_a_walk_through_an_empty_queue_is_over_at_once(broker: FailingBroker) -> None:
    async with walking(broker, TOPOLOGY, 3) as walk:
        assert [each async for each in walk] == []


async def test_without_a_queue_a_walk_is_unavailable(server: MemoryServer) -> None:
    broker = MemoryBroker(server)
    await broker.open()
    with pytest.raises(BrokerUnavailable, match=r"no queue 'ns\.dead'"):
        async with walking(broker, TOPOLOGY, 3):
            pass


async def test_dead_letters_that_go_while_it_walks_do_not_hold_it_up(
    broker: FailingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a stranger published with an expiration."""
    monkeypatch.setattr(dead_queue, "QUIET_SECONDS", 0.05)
    short = letter("a", "gone")
    await bury(broker, letter("a", "0"), replace(short, properties=replace(short.properties, expiration="1")))
    async with walking(broker, TOPOLOGY, 1) as walk:
        await asyncio.sleep(0.01)
        seen = []
        async for each in walk:
            walk.will_remove()
            await walk.remove(each)
            seen.append(each)
    assert texts(seen) == ["a-0"]


async def test_a_second_walk_waits_for_the_first(broker: FailingBroker, server: MemoryServer) -> None:
    await bury(broker, letter("a", "0"))
    other = MemoryBroker(server)
    await other.open()
    async with walking(broker, TOPOLOGY, 10) as walk:
        assert len([each async for each in walk]) == 1
        waiting = asyncio.create_task(walked(other))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
    assert await waiting == ["a-0"]


async def walked(broker: MemoryBroker) -> list[str]:
    async with walking(broker, TOPOLOGY, 10) as walk:
        return texts([each async for each in walk])


async def test_a_second_walk_gives_up_after_a_while(
    broker: FailingBroker, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_queue, "TAKEN_SECONDS", 0.1)
    other = MemoryBroker(server)
    await other.open()
    async with walking(broker, TOPOLOGY, 10):
        with pytest.raises(QueueTaken):
            await walked(other)


async def test_a_replay_keeps_the_order_of_each_context_and_empties_the_queue(broker: FailingBroker) -> None:
    names = [f"ctx{number}" for number in range(7)]
    await bury(broker, *(letter(name, str(number)) for number in range(10) for name in names))
    replay = Replay(broker, TOPOLOGY, every)
    async with walking(broker, TOPOLOGY, 1000) as walk:
        await replay.run(walk)
    await holds_messages(broker, TOPOLOGY.dead, 0)
    requests = await left_in(broker, TOPOLOGY.shard_queue(0))
    for name in names:
        assert [text for text in texts(requests) if text.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(10)]
    assert len(replay.ids) == 70


async def test_the_first_that_does_not_get_through_ends_it_and_nothing_is_lost(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(10)))
    broker.refused = {"a-4"}
    replay = Replay(broker, TOPOLOGY, every)
    async with walking(broker, TOPOLOGY, 1000) as walk:
        with pytest.raises(PublishNacked):
            await replay.run(walk)
    assert broker.published == [f"a-{number}" for number in range(4)]
    assert texts(await left_in(broker, TOPOLOGY.dead)) == [f"a-{number}" for number in range(4, 10)]

    broker.refused = set()
    async with walking(broker, TOPOLOGY, 1000) as walk:
        await Replay(broker, TOPOLOGY, every).run(walk)
    assert broker.published == [f"a-{number}" for number in range(10)]


async def test_once_the_queue_is_lost_nothing_more_is_published(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(5)))
    async with walking(broker, TOPOLOGY, 1000) as walk:
        with pytest.raises(BrokerUnavailable, match="was lost"):
            await Replay(broker, TOPOLOGY, lambda _: lose(walk)).run(walk)
    assert broker.published == []
    assert len(await left_in(broker, TOPOLOGY.dead)) == 5


def lose(walk: Walk) -> bool:
    channel = walk._channel
    assert channel is not None
    channel.shut()  # type: ignore[attr-defined]
    return True


async def test_a_cancelled_replay_leaves_what_had_no_confirm(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(50)))

    async def replaying() -> None:
        async with walking(broker, TOPOLOGY, 1000) as walk:
            await Replay(broker, TOPOLOGY, every).run(walk)

    task = asyncio.create_task(replaying())
    while len(broker.published) < 5:  # noqa: ASYNC110 - the broker tells nobody
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = texts(await left_in(broker, TOPOLOGY.dead))
    assert 0 < len(left) <= 50
    assert set(left) | set(broker.published) == {f"a-{number}" for number in range(50)}


async def test_what_does_not_match_or_cannot_be_replayed_stays(broker: FailingBroker) -> None:
    await bury(broker, letter("a", "0"), letter("b", "1"), letter("a", "2", message_id=None), letter("a", "3"))
    replay = Replay(broker, TOPOLOGY, lambda each: each.ctx_id == "a")
    async with walking(broker, TOPOLOGY, 1000) as walk:
        await replay.run(walk)
    assert [kept.obstacle is not None for kept in replay.kept] == [True]
    assert replay.ids == [("a-0", "a-0"), ("a-3", "a-3")]
    assert texts(await left_in(broker, TOPOLOGY.dead)) == ["b-1", "a-2"]


async def test_what_comes_back_while_it_is_replayed_is_not_replayed_for_ever(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(5)))
    tasks: list[asyncio.Task[None]] = []

    def fail(each: Delivery) -> None:
        tasks.append(asyncio.create_task(bury(broker, letter("a", texts([each])[0].partition("-")[2]))))
        tasks.append(asyncio.create_task(each.channel.ack(each)))

    await broker.consume(TOPOLOGY.shard_queue(0), 1, fail)
    replay = Replay(broker, TOPOLOGY, every)
    async with asyncio.timeout(10), walking(broker, TOPOLOGY, 1000) as walk:
        await replay.run(walk)
    assert len(replay.ids) == 5
    await holds_messages(broker, TOPOLOGY.dead, 5)


async def test_run_again_gives_new_ids_and_tells_them(broker: FailingBroker) -> None:
    await bury(broker, letter("a", "0"))
    replay = Replay(broker, TOPOLOGY, every, run_again=True)
    async with walking(broker, TOPOLOGY, 1000) as walk:
        await replay.run(walk)
    assert replay.ids == [("a-0", new_id("a-0"))]
    assert broker.published == [new_id("a-0")]


async def test_only_what_was_shown_is_dropped(broker: FailingBroker) -> None:
    await bury(broker, *(letter("a", str(number)) for number in range(3)))
    async with walking(broker, TOPOLOGY, 1000) as walk:
        shown = {read_dead_letter(each).digest async for each in walk if texts([each]) != ["a-1"]}
    await bury(broker, letter("a", "later"))
    async with walking(broker, TOPOLOGY, 1000) as walk:
        assert await drop(walk, shown) == 2
    assert texts(await left_in(broker, TOPOLOGY.dead)) == ["a-1", "a-later"]
