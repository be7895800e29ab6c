"""A namespace whose workers store contexts in layout 1 gets workers of today, under load. An older one that comes back,
or stays, begins no turn of what those have touched, and no dialog loses a turn, is answered otherwise or begins anew.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import ExitCode
from tests.integration.conftest import StartWorker
from tests.services.processes import WorkerProcess
from worker.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(120)

BOT = "tests.integration.test_layout_1_workers:bot"
DIALOGS = [f"ctx-{number}" for number in range(40)]


async def bot(ctx: Context) -> str:
    """Counts its turns."""
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return str(ctx.misc["turns"])


@asynccontextmanager
async def older_worker(settings: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    process = await WorkerProcess.start(["-m", "tests.services.layout_1", "run", BOT], settings)
    try:
        yield process
    finally:
        await process.kill()


class Dialogs:
    """Forty dialogs, and the number of their last turn."""

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self._turns = 0

    async def go_on(self) -> None:
        """The next turn of every dialog."""
        self._turns += 1
        replies = await asyncio.gather(*(self._client.ask("Hello", ctx_id) for ctx_id in DIALOGS))
        told = [(reply.turn, reply.message.text if reply.message else None) for reply in replies]
        assert told == [(self._turns, str(self._turns))] * len(DIALOGS)

    async def go_on_until(self, done: asyncio.Task[Any]) -> asyncio.Task[None]:
        """Turn after turn until `done`; the turn that was under way then."""
        while True:
            under_way = asyncio.create_task(self.go_on())
            await asyncio.wait([under_way, done], return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                await done
                return under_way
            await under_way


async def test_dialogs_of_layout_1_go_on_and_an_older_worker_that_comes_back_ends(
    worker_settings: dict[str, str], start_worker: StartWorker, client: BrokerClient
) -> None:
    dialogs = Dialogs(client)
    async with older_worker(worker_settings) as older:
        await older.ready()
        await dialogs.go_on()
        await (await start_worker(BOT)).ready()
        stopping = asyncio.create_task(older.stop())
        under_way = await dialogs.go_on_until(stopping)
        assert stopping.result() == ExitCode.OK
        await under_way
    await dialogs.go_on()

    async with older_worker(worker_settings) as back:
        ended = asyncio.create_task(back.ended())
        under_way = await dialogs.go_on_until(ended)
        assert ended.result() == ExitCode.STORE, back.log
        await under_way
    await dialogs.go_on()


async def test_an_older_worker_that_stays_holds_up_what_one_of_today_has_touched_and_nothing_else(
    worker_settings: dict[str, str], start_worker: StartWorker, client: BrokerClient, store: RedisStore
) -> None:
    async with older_worker(worker_settings | {"SWITCHBOARD_DRAIN_TIMEOUT": "2"}) as older:
        await older.ready()
        for ctx_id in ("touched", "other"):
            assert (await client.ask("Hello", ctx_id)).turn == 1
        await store.load("touched", "another", epoch=await store.claim(), attempt="a", history=1)
        held_up = asyncio.create_task(client.ask("Hello", "touched"))
        await older.logged("refused what was allowed before")
        for turn in (2, 3, 4):
            assert (await client.ask("Hello", "other")).turn == turn
        assert not held_up.done()
        await (await start_worker(BOT)).ready()
        assert await older.stop() == ExitCode.UNFINISHED
    reply = await held_up
    assert (reply.turn, reply.message and reply.message.text) == (2, "2")
    assert (await client.ask("Hello", "other")).turn == 5
