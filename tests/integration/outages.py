"""The course of an outage test: turns run, a fault begins, requests go on coming, the fault ends, all is answered.

A worker inside the test may run each turn once only and may start it once only (`STRICT`): whatever an outage counts
against a request makes a dead letter of it, and none is allowed.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from interfaces.client import BrokerClient
from interfaces.replies import Replies
from interfaces.reply_bodies import Reply
from tests.integration.faults import PATIENCE, Gate, Sent, applied, running, send_all, until
from worker.running import Worker
from worker.stores import ContextStore

CONTEXTS = [f"context {number}" for number in range(8)]
STRICT: dict[str, Any] = {"attempts": 1, "crash_limit": 1}
Fault = AbstractAsyncContextManager[object]


def gate() -> Gate:
    """A bot that holds its turns at "held"."""
    bot = Gate()
    bot.open("before", "during", "after")
    return bot


async def ride_out(
    worker: Worker,
    bot: Gate,
    client: BrokerClient,
    store: ContextStore,
    fault: Fault,
    *,
    noticed: Callable[[], bool],
    forgets: bool = False,
) -> None:
    """Have `worker` go through `fault` in the middle of turns, until `noticed` and further to the end.

    Fails where a request from before, during or after it is lost, applied twice, out of order, run twice, answered in
    two ways or not answered, or where the worker ends. `forgets`: the fault takes all contexts, so that they begin
    anew with the turn that ran.
    """
    texts = ["before", "held", "during", "after"]
    async with client.replies() as replies, running(worker) as task:
        answers = asyncio.create_task(_collect(replies, len(CONTEXTS) * len(texts)))
        await send_all(client, _each("before"))
        await applied(store, _each("before"))
        await send_all(client, _each("held"))
        await until(lambda: bot.started.count("held") == len(CONTEXTS), "every context is in a turn")
        async with fault:
            sending = asyncio.create_task(send_all(client, _each("during")))
            bot.open("held")
            await until(lambda: noticed() or task.done(), "the worker noticed")
            assert not task.done()
        await sending
        await send_all(client, _each("after"))
        async with asyncio.timeout(PATIENCE):
            got = await answers
        await applied(store, _each(*(texts[1:] if forgets else texts)))
        assert not task.done()
    assert {len(different) for different in got.values()} == {1}
    assert {reply.status for different in got.values() for reply in different} == {"ok"}
    runs = Counter(bot.started)
    if not forgets:
        assert runs == dict.fromkeys(texts, len(CONTEXTS))


def _each(*texts: str) -> Sent:
    return {ctx_id: list(texts) for ctx_id in CONTEXTS}


async def _collect(replies: Replies, wanted: int) -> dict[str | None, list[Reply]]:
    """By request, the replies that differ, once so many requests have one."""
    got: defaultdict[str | None, list[Reply]] = defaultdict(list)
    async for reply in replies:
        if reply not in got[reply.request_id]:
            got[reply.request_id].append(reply)
        if len(got) == wanted:
            break
    return got
