"""Bots that never end, in worker processes on real servers: they cost their own requests, and neither the others nor,
up to a bound, the process. At the bound it ends in order, for a fresh one to take over."""

import asyncio

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import ExitCode, Reason
from interfaces.topology import Topology
from tests.bots.stuck import STUCK, STUCK_ONCE
from tests.integration.conftest import StartWorker
from tests.integration.wire import Wire

SECONDS = 60
TURN_SECONDS = 2.0
"""Longer than a busy machine holds up an event loop: a loop that stands still for so long ends its process."""

BOTS = ["tests.bots.stuck:answer", "tests.bots.stuck:answer_plainly"]


@pytest.mark.parametrize("bot", BOTS)
async def test_a_turn_that_never_ends_is_a_dead_letter_and_the_worker_goes_on_and_stops_in_order(
    bot: str, topology: Topology, client: BrokerClient, wire: Wire, start_worker: StartWorker
) -> None:
    worker = await start_worker(bot, turn_timeout=TURN_SECONDS, attempts=2, retry_wait=0)
    stuck = asyncio.create_task(client.ask(STUCK, "stuck", timeout=SECONDS))
    behind = asyncio.create_task(client.ask("behind it", "stuck", timeout=SECONDS))
    beside = await client.ask("beside it", "another", timeout=SECONDS)
    assert beside.message is not None
    assert beside.message.text == "beside it"
    error, reply = await asyncio.gather(stuck, behind)
    assert (error.status, error.error and error.error.code) == ("error", Reason.TURN_TIMEOUT)
    assert (reply.status, reply.turn) == ("ok", 1)
    [dead] = await wire.take_all(topology.dead)
    assert dead.properties.headers is not None
    assert dead.properties.headers["x-switchboard-attempts"] == 2
    assert worker.log.count("does not end, and is left behind at") == 2
    assert "tests/bots/stuck.py" in worker.log
    assert await worker.stop() == ExitCode.OK, worker.log


@pytest.mark.parametrize("bot", BOTS)
async def test_at_the_bound_the_worker_ends_in_order_and_a_fresh_one_goes_on(
    bot: str, client: BrokerClient, start_worker: StartWorker
) -> None:
    worker = await start_worker(bot, turn_timeout=TURN_SECONDS, attempts=1, left_behind=2)
    errors = await asyncio.gather(*(client.ask(STUCK, f"context {n}", timeout=SECONDS) for n in range(2)))
    assert {error.error and error.error.code for error in errors} == {Reason.TURN_TIMEOUT}
    async with asyncio.timeout(SECONDS):
        assert await worker.ended() == ExitCode.STUCK, worker.log
    await start_worker(bot)
    reply = await client.ask("hello", "context 0", timeout=SECONDS)
    assert (reply.status, reply.turn) == ("ok", 1)


async def test_a_turn_that_hangs_once_is_answered_by_its_next_attempt(
    client: BrokerClient, start_worker: StartWorker
) -> None:
    worker = await start_worker("tests.bots.stuck:answer_plainly", turn_timeout=TURN_SECONDS, retry_wait=0)
    reply = await client.ask(STUCK_ONCE, "ada", timeout=SECONDS)
    assert (reply.status, reply.turn) == ("ok", 1)
    assert "is left behind" in worker.log
    assert await worker.stop() == ExitCode.OK, worker.log
