"""One request that ends its process, among 300 that are fine, on `switchboard run --processes 2` and real servers.

It must be a dead letter within three crashes. All others, those that ran beside it and those behind it in its own
context included, are answered in order, each applied once, none a dead letter.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import Reason
from interfaces.reply_bodies import Reply, decode_reply
from interfaces.topology import Topology
from tests.integration.conftest import Report
from tests.integration.wire import Seen, Wire
from tests.services.processes import WorkerProcess
from worker import records
from worker.stores.redis import RedisStore

CONTEXTS = [f"context {number}" for number in range(100)]
KILLER_CONTEXT = CONTEXTS[37]
TEXTS = ["one", "two", "three"]
KILLER = "the killer"
CRASH_LIMIT = 3
SECONDS = 120

Supervise = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture
def supervise(processes: list[WorkerProcess], worker_settings: dict[str, str]) -> Supervise:
    """Starts `switchboard run APP --processes 2`."""

    async def supervise(app: str, **settings: object) -> WorkerProcess:
        further = {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        arguments = ["-m", "worker.cli", "run", app, "--processes", "2"]
        process = await WorkerProcess.start(arguments, worker_settings | further)
        processes.append(process)
        return process

    return supervise


async def send_all(client: BrokerClient, death: str) -> None:
    """Three messages to each context, round by round; the killer is in the middle of its context's."""
    for number, text in enumerate(TEXTS):
        if number == 1:
            await client.send(death, KILLER_CONTEXT, request_id=KILLER)
        await asyncio.gather(*(client.send(text, ctx_id, request_id=f"{ctx_id} {text}") for ctx_id in CONTEXTS))


async def until_all_is_done(store: RedisStore, wire: Wire, dead: str, supervisor: WorkerProcess) -> None:
    async def is_done() -> bool:
        found = await asyncio.gather(*(store.peek(ctx_id, 0) for ctx_id in CONTEXTS))
        versions = [context.version if context else 0 for context in found]
        return min(versions) >= len(TEXTS) and await wire.count(dead) >= 1

    try:
        async with asyncio.timeout(SECONDS):
            while not await is_done():  # noqa: ASYNC110 - what is waited for is in the servers
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not done within {SECONDS} s:\n{supervisor.log}") from None


def crashes(supervisor: WorkerProcess) -> list[str]:
    return re.findall(r" supervisor: worker \d+: process \d+ ((?:was killed|ended with).*?) after", supervisor.log)


async def assert_applied_once(store: RedisStore) -> None:
    for ctx_id in CONTEXTS:
        loaded = await store.peek(ctx_id, 10)
        assert loaded is not None
        context = records.read_context(ctx_id, loaded.version, loaded.main, loaded.turns)
        assert context.misc["applied"] == TEXTS
        assert loaded.version == len(TEXTS)


def assert_answered_in_order(seen: list[Seen]) -> None:
    replies: defaultdict[str, list[Reply]] = defaultdict(list)
    for reply in (decode_reply(one.body) for one in seen):
        assert reply.ctx_id is not None
        if reply not in replies[reply.ctx_id]:  # one whose request was not acknowledged in time comes again
            replies[reply.ctx_id].append(reply)
    errors = [reply for reply in replies[KILLER_CONTEXT] if reply.error is not None]
    assert [(error.request_id, error.error and error.error.code) for error in errors] == [
        (KILLER, Reason.CRASHES_WORKER)
    ]
    assert [reply.request_id for reply in replies[KILLER_CONTEXT]].index(KILLER) == 1
    replies[KILLER_CONTEXT].remove(errors[0])
    for ctx_id in CONTEXTS:
        told = [(reply.turn, reply.message and reply.message.text) for reply in replies[ctx_id]]
        assert told == [(number, f"{number}: {text}") for number, text in enumerate(TEXTS, start=1)], ctx_id


@pytest.mark.parametrize(
    ("app", "death", "end"),
    [
        ("tests.bots.deadly:answer", "leave", "exit code 70"),
        ("tests.bots.deadly:answer", "violate_memory", "SIGSEGV"),
        pytest.param("tests.bots.deadly:answer", "exhaust_memory", "SIGKILL", marks=pytest.mark.long),
        ("tests.bots.deadly:answer", "block", "exit code 9 (STUCK)"),
        pytest.param("tests.bots.deadly:answer_plainly", "leave", "exit code 70", marks=pytest.mark.long),
        ("tests.bots.chatsky_deadly:pipeline", "leave", "exit code 70"),
    ],
)
async def test_a_request_that_ends_its_process_is_isolated_and_its_300_neighbours_are_answered(
    app: str,
    death: str,
    end: str,
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    supervise: Supervise,
    report: Report,
) -> None:
    replies = await wire.listen(topology.replies_exchange)
    await send_all(client, death)
    began = asyncio.get_running_loop().time()
    supervisor = await supervise(app, crash_limit=CRASH_LIMIT, turn_timeout=5)

    await until_all_is_done(store, wire, topology.dead, supervisor)
    lasted = asyncio.get_running_loop().time() - began
    assert await supervisor.stop() == 0, supervisor.log

    ends = crashes(supervisor)
    assert 1 <= len(ends) <= CRASH_LIMIT, supervisor.log
    assert all(end in how for how in ends), supervisor.log
    suspects = set(re.findall(r"request '(.+?)' was started .* runs alone", supervisor.log))
    assert suspects > {KILLER}, "no other turn was hit by a crash, so this has shown nothing"
    [dead] = await wire.take_all(topology.dead)
    assert dead.properties.message_id == KILLER
    assert dead.properties.headers is not None
    assert dead.properties.headers["x-switchboard-reason"] == Reason.CRASHES_WORKER
    await assert_applied_once(store)
    assert_answered_in_order(await wire.take_all(replies))
    report(f"{len(ends)} crashes, {len(suspects)} suspects, all settled after {lasted:.1f} s")
