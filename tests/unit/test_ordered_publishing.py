"""Publishing in order: per context one at a time, retries included; other contexts do not wait; no caller hangs."""

import asyncio
import random
from collections import defaultdict
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfaces import ordered_publishing
from interfaces.brokers import Broker, Outgoing, Properties
from interfaces.errors import BrokerUnavailable, PublishNacked, PublishTimeout, Unroutable
from interfaces.ordered_publishing import OrderedPublisher
from tests.unit.test_lanes import Gate


class ScriptedBroker:
    """A broker whose publishes end as the test says; what it has confirmed is in `confirmed`."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.confirmed: list[str] = []
        self.failures: defaultdict[str, list[Exception]] = defaultdict(list)
        self.gate = Gate()

    async def publish(self, message: Outgoing) -> None:
        name = message.body.decode()
        self.attempts.append(name)
        await self.gate.turn(name, len(self.attempts))
        if self.failures[name]:
            raise self.failures[name].pop(0)
        self.confirmed.append(name)


def publisher_on(broker: ScriptedBroker) -> OrderedPublisher:
    return OrderedPublisher(cast("Broker", broker))


def numbered(name: str) -> Outgoing:
    return Outgoing("ns.requests", "0", name.encode(), Properties(message_id=f"id of {name}"))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> ScriptedBroker:
    monkeypatch.setattr(ordered_publishing, "OUTAGE_WAIT", lambda _: 0)
    return ScriptedBroker()


async def test_the_next_request_of_a_context_waits_for_the_confirm_of_the_one_before(broker: ScriptedBroker) -> None:
    publisher = publisher_on(broker)
    async with asyncio.TaskGroup() as sending:
        for name in ("1", "2", "3"):
            sending.create_task(publisher.publish(numbered(name), "ctx", 5))
        for done, name in enumerate(("1", "2", "3"), start=1):
            await broker.gate.wait_started(done)
            assert broker.attempts == ["1", "2", "3"][:done]
            broker.gate.open(name)
    assert broker.confirmed == ["1", "2", "3"]


async def test_other_contexts_do_not_wait(broker: ScriptedBroker) -> None:
    publisher = publisher_on(broker)
    stuck = asyncio.create_task(publisher.publish(numbered("stuck"), "one", 5))
    await broker.gate.wait_started(1)
    broker.gate.open("free")
    await publisher.publish(numbered("free"), "another", 5)
    assert not stuck.done()
    broker.gate.open("stuck")
    await stuck


@pytest.mark.parametrize("failure", [BrokerUnavailable("cut"), PublishNacked("full"), PublishTimeout("slow")])
async def test_a_request_is_repeated_until_confirmed_before_the_next_one_goes(
    broker: ScriptedBroker, failure: BrokerUnavailable
) -> None:
    publisher = publisher_on(broker)
    broker.failures["1"] = [failure] * 5
    for name in ("1", "2"):
        broker.gate.open(name)
    await asyncio.gather(*(publisher.publish(numbered(name), "ctx", 5) for name in ("1", "2")))
    assert broker.attempts == ["1"] * 6 + ["2"]
    assert broker.confirmed == ["1", "2"]


async def test_a_request_without_a_queue_fails_at_once_and_the_next_one_goes(broker: ScriptedBroker) -> None:
    publisher = publisher_on(broker)
    broker.failures["1"] = [Unroutable("nothing bound")]
    for name in ("1", "2"):
        broker.gate.open(name)
    first, second = await asyncio.gather(
        *(publisher.publish(numbered(name), "ctx", 5) for name in ("1", "2")), return_exceptions=True
    )
    assert isinstance(first, Unroutable)
    assert second is None
    assert broker.attempts == ["1", "2"]


async def test_time_that_runs_out_is_told_with_what_stood_in_the_way(broker: ScriptedBroker) -> None:
    broker.failures["1"] = [PublishNacked("queue full")]
    publishing = asyncio.create_task(publisher_on(broker).publish(numbered("1"), "ctx", 0.1))
    broker.gate.open("1")
    await broker.gate.wait_started(1)
    broker.gate._open["1"].clear()
    with pytest.raises(BrokerUnavailable, match=r"'id of 1' of context 'ctx' .* 0\.1 s: queue full"):
        await publishing


async def test_time_that_runs_out_without_an_answer_says_so(broker: ScriptedBroker) -> None:
    with pytest.raises(BrokerUnavailable, match="no confirm yet"):
        await publisher_on(broker).publish(numbered("1"), "ctx", 0.05)


async def test_waiting_for_an_earlier_request_counts_into_the_time_and_the_one_behind_takes_its_place(
    broker: ScriptedBroker,
) -> None:
    publisher = publisher_on(broker)
    first = asyncio.create_task(publisher.publish(numbered("1"), "ctx", 5))
    await broker.gate.wait_started(1)
    second = asyncio.create_task(publisher.publish(numbered("2"), "ctx", 0.05))
    third = asyncio.create_task(publisher.publish(numbered("3"), "ctx", 5))
    with pytest.raises(BrokerUnavailable, match="earlier request"):
        await second
    for name in ("1", "3"):
        broker.gate.open(name)
    await asyncio.gather(first, third)
    assert broker.confirmed == ["1", "3"]


async def test_a_cancelled_caller_makes_way(broker: ScriptedBroker) -> None:
    publisher = publisher_on(broker)
    first = asyncio.create_task(publisher.publish(numbered("1"), "ctx", 5))
    await broker.gate.wait_started(1)
    first.cancel()
    broker.gate.open("2")
    await publisher.publish(numbered("2"), "ctx", 5)
    assert first.cancelled()
    assert broker.confirmed == ["2"]


@settings(deadline=None, max_examples=40)
@given(
    requests=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
async def test_any_mix_of_failures_keeps_the_order_of_every_context_and_leaves_nothing_behind(
    requests: list[tuple[str, int]], seed: int
) -> None:
    chance = random.Random(seed)
    confirmed: defaultdict[str, list[int]] = defaultdict(list)
    failing = {str(number): failures for number, (_, failures) in enumerate(requests)}

    class Flaky:
        async def publish(self, message: Outgoing) -> None:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            name = message.body.decode()
            if failing[name]:
                failing[name] -= 1
                raise BrokerUnavailable("cut")
            confirmed[message.routing_key].append(int(name))

    publisher = OrderedPublisher(cast("Broker", Flaky()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered_publishing, "OUTAGE_WAIT", lambda _: 0)
        async with asyncio.timeout(10):
            await asyncio.gather(
                *(
                    publisher.publish(Outgoing("x", ctx_id, b"%d" % number, Properties()), ctx_id, 10)
                    for number, (ctx_id, _) in enumerate(requests)
                )
            )
    for ctx_id in "abc":
        assert confirmed[ctx_id] == [number for number, (sender, _) in enumerate(requests) if sender == ctx_id]
    assert len(publisher._turnstiles) == 0
