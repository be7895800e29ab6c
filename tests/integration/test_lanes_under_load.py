"""A slow turn holds back its own context and no other: 299 contexts are answered while the turn of one goes on."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from interfaces.client import BrokerClient
from tests.bots.gated import HOLD, MOST_SECONDS, began_key, release_key
from tests.integration.conftest import Report, StartWorker

OTHERS = 299
SLOW_SECONDS = 2


@pytest.mark.parametrize("handler", ["answer", "answer_blocking"])
async def test_299_contexts_are_answered_while_the_turn_of_one_goes_on(
    handler: str, namespace: str, redis_url: str, client: BrokerClient, start_worker: StartWorker, report: Report
) -> None:
    """The slow turn lasts two seconds, and on until the test has seen all other replies: order decides, no clock."""
    await (await start_worker(f"tests.bots.gated:{handler}")).ready()
    answered: list[str] = []

    async def ask(text: str, ctx_id: str) -> None:
        reply = await client.ask(text, ctx_id, timeout=MOST_SECONDS)
        assert (reply.ctx_id, reply.message and reply.message.text) == (ctx_id, text)
        answered.append(f"{ctx_id}: {text}")

    async with Redis.from_url(redis_url, socket_timeout=2 * MOST_SECONDS) as gate, asyncio.TaskGroup() as asking:
        asking.create_task(ask(HOLD, "slow"))
        assert await gate.blpop([began_key(namespace)], timeout=MOST_SECONDS)
        began = time.monotonic()
        asking.create_task(ask("waits its turn", "slow"))
        await asyncio.gather(*(ask("hello", f"context {number}") for number in range(OTHERS)))
        seconds = time.monotonic() - began
        assert sorted(answered) == sorted(f"context {number}: hello" for number in range(OTHERS))

        await asyncio.sleep(max(0.0, SLOW_SECONDS - seconds))
        assert len(answered) == OTHERS
        await gate.rpush(release_key(namespace), "go")
    assert answered[OTHERS:] == [f"slow: {HOLD}", "slow: waits its turn"]
    slow_seconds = max(SLOW_SECONDS, seconds)
    report(f"{OTHERS} contexts answered in {seconds:.2f} s while the slow turn lasted {slow_seconds:.2f} s")
