"""What a turn leaves in memory is freed as it ends: nothing of it waits for the garbage collector."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.messages import Message
from interfaces.nested_loops import nested_loops_prevented
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.faults import running, worker_settings
from worker.running import Worker

WARM, MEASURED = 100, 300
"""Turns: what is made once is made in the first ones."""


class Turns:
    """Counts the turns, and tells when the warm ones and when all of them were run."""

    def __init__(self) -> None:
        self.run = 0
        self.warm, self.all = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        """A bot that waits: its turn then passes through more hands than one that answers at once."""
        await asyncio.sleep(0.001)
        self.run += 1
        if self.run == WARM:
            self.warm.set()
        if self.run == WARM + MEASURED:
            self.all.set()


def handler(turns: Turns) -> Any:
    """A handler that reads an earlier turn."""

    async def answer(ctx: Context) -> str:
        await turns.wait()
        earlier = await ctx.turns[-2] if ctx.current_turn_id > 1 else None
        return f"after {earlier}"

    return answer


def failing(turns: Turns) -> Any:
    """A handler that fails once in every turn, and is tried again."""
    failed: set[str] = set()

    async def answer(ctx: Context) -> str:
        if ctx.request_id not in failed:
            failed.add(ctx.request_id or "")
            raise ValueError("not at once")
        await turns.wait()
        return "at last"

    return answer


def pipeline(turns: Turns) -> Any:
    """A Chatsky pipeline."""
    with nested_loops_prevented():
        from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Pipeline
        from chatsky import Context as ChatskyContext
        from chatsky import Message as ChatskyMessage
        from chatsky import Transition as Tr

    class Answer(BaseResponse):
        async def call(self, ctx: ChatskyContext) -> ChatskyMessage:
            await turns.wait()
            return ChatskyMessage("well")

    return Pipeline({"a": {"b": {RESPONSE: Answer(), TRANSITIONS: [Tr(dst="b")]}}}, ("a", "b"))


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collected_by_hand")
@pytest.mark.parametrize(("bot", "per_turn"), [(handler, 0), (failing, 45), (pipeline, 0)])
async def test_a_turn_leaves_nothing_to_the_garbage_collector(
    bot: Any, per_turn: int, amqp_url: str, redis_url: str, topology: Topology, report: Report
) -> None:
    """But for what tenacity makes, one of its `AsyncRetrying` for each turn that fails. Nobody takes the replies here,
    so that every publish ends with an error: its traceback is a way round to it."""
    async with BrokerClient(amqp_url, namespace=topology.namespace) as client:
        await asyncio.gather(*(client.send(Message("hi"), f"user {n % 40}") for n in range(WARM + MEASURED)))
    turns = Turns()
    settings = worker_settings(topology.namespace, redis_url=redis_url, amqp_url=amqp_url, retry_wait=0.001)
    async with running(Worker(bot(turns), settings)):
        async with asyncio.timeout(30):
            await turns.warm.wait()
            gc.collect()
            await turns.all.wait()
        left = gc.collect()
    report(f"{MEASURED} turns left {left} objects in circles")
    assert left <= MEASURED * per_turn + WARM
