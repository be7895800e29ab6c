"""A Chatsky turn costs the same however long its dialog is: bytes and commands to Redis, and function calls in Python.

Counted and not timed, so that a busy machine changes nothing; `make chatsky-comparison` measures the time.
"""

from collections.abc import Mapping

import pytest

from interfaces.brokers import Delivery
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.messages import Message
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.redis_probes import calls_since, command_calls, opened, proxied
from tests.services.call_count import counting_calls
from tests.unit.deliveries import StubChannel
from worker.apps import load_app
from worker.settings import Settings
from worker.stores import ContextStore, Retention
from worker.stores.memory import MemoryStore
from worker.turns import TurnRunner

# Chatsky reads `model_fields` of an instance whenever a pipeline is made.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute:DeprecationWarning")

EARLY, LATE = 10, 2000
MORE_CALLS = 1.02
NUMBERS_GROWN = 64
"""Bytes: 2,000 is two digits longer than 10 wherever a turn's number is written."""


class Dialog:
    """One dialog with a bot, turn after turn, without a broker; the user always says the same."""

    def __init__(self, app: str, said: str, store: ContextStore) -> None:
        self._said = said
        self._runner = TurnRunner(load_app(app), store, Settings(), lambda _: self._request)
        self._channel = StubChannel()
        self._request: Request
        self._turns = 0

    async def turn(self) -> None:
        """Run the next turn."""
        self._turns += 1
        request_id = f"request {self._turns:06d}"
        outgoing = encode_request(Topology(), Message(self._said), "dialog", request_id=request_id)
        delivery = Delivery(outgoing.body, outgoing.properties, "", outgoing.routing_key, False, 0, 1, self._channel)
        self._request = decode_request(delivery, Topology())
        context = await self._runner(self._request.message, "dialog")
        assert context.current_turn_id == self._turns

    async def go_to(self, turn: int) -> None:
        """Run turns until `turn` is next."""
        while self._turns < turn - 1:
            await self.turn()

    async def calls(self) -> int:
        """Run the next turn; the functions it calls, those written in C included."""
        with counting_calls() as calls:
            await self.turn()
        return calls.number


@pytest.mark.parametrize(
    ("app", "said"),
    [("tests.bots.chatsky_counting:pipeline", "hello"), ("tests.bots.chatsky.transitions:pipeline", "previous")],
    ids=["counts", "looks at the label before"],
)
async def test_a_turn_calls_as_many_functions_at_turn_10_and_at_turn_2_000(app: str, said: str, report: Report) -> None:
    dialog = Dialog(app, said, MemoryStore(Retention()))
    await dialog.go_to(EARLY)
    early = await dialog.calls()
    await dialog.go_to(LATE)
    late = await dialog.calls()
    report(f"{early} calls at turn {EARLY}, {late} at turn {LATE}")
    assert late <= MORE_CALLS * early


async def test_a_turn_costs_redis_the_same_at_turn_10_and_at_turn_2_000(redis_url: str, report: Report) -> None:
    async with proxied(redis_url) as (proxy, via), opened(redis_url, via=via) as store:
        dialog = Dialog("tests.bots.chatsky_counting:pipeline", "hello", store)

        async def cost() -> tuple[int, int, Mapping[str, int]]:
            sent, received, commands = proxy.sent, proxy.received, await command_calls(redis_url)
            await dialog.turn()
            return proxy.sent - sent, proxy.received - received, await calls_since(redis_url, commands)

        await dialog.go_to(EARLY)
        early = await cost()
        await dialog.go_to(LATE)
        late = await cost()
    report(f"{early} at turn {EARLY}, {late} at turn {LATE}")
    assert late[0] - early[0] <= NUMBERS_GROWN
    assert late[1] - early[1] <= NUMBERS_GROWN
    # Since turn 129 each commit drops the oldest kept reply.
    dropping = {"hget": 1, "hdel": 1}
    assert late[2] == {name: early[2].get(name, 0) + dropping.get(name, 0) for name in {*early[2], *dropping}}
    assert late[2]["evalsha"] == 2
