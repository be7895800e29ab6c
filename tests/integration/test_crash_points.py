"""A worker killed with SIGKILL at each point of a turn: applied once, its reply always with the same id and body."""

import asyncio
import signal
from collections import defaultdict

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import Reason
from interfaces.reply_bodies import Reply, decode_reply
from interfaces.topology import Topology
from tests.bots.counting import DEADLY, EXIT_CODE
from tests.integration.conftest import StartFaultyWorker, StartWorker
from tests.integration.wire import Seen, Wire
from tests.services.faulty_worker import Where
from tests.services.processes import WorkerProcess
from worker import records
from worker.stores.redis import RedisStore

BOT = "tests.bots.counting:answer"
CTX = "dialog"
TURNS = 5
ASK_SECONDS = 60


def text_of(reply: Reply) -> str | None:
    return reply.message.text if reply.message else None


async def applied(store: RedisStore) -> list[str]:
    """The texts of the turns applied, as the bot noted them in the context; Redis holds exactly these turns."""
    loaded = await store.peek(CTX, 100)
    assert loaded is not None
    context = records.read_context(CTX, loaded.version, loaded.main, loaded.turns)
    noted: list[str] = context.misc["applied"]
    assert [request.text for _, request in sorted(context.requests.items())] == noted
    assert loaded.version == len(noted)
    return noted


async def assert_ended(process: WorkerProcess, code: int) -> None:
    async with asyncio.timeout(ASK_SECONDS):
        assert await process.ended() == code, process.log


async def replies_by_request(wire: Wire, queue: str) -> dict[str, list[Seen]]:
    """All replies on a queue under the ids of their requests; those of one request are identical."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for seen in await wire.take_all(queue):
        assert seen.properties.correlation_id is not None
        found[seen.properties.correlation_id].append(seen)
    for request_id, replies in found.items():
        assert len({reply.body for reply in replies}) == 1, request_id
        assert len({reply.properties.message_id for reply in replies}) == 1, request_id
    ids = [replies[0].properties.message_id for replies in found.values()]
    assert len(set(ids)) == len(ids)
    return found


def assert_every_turn_answered_once(replies: dict[str, list[Seen]], ids: list[str], texts: list[str]) -> None:
    assert sorted(replies) == sorted(ids)
    bodies = [decode_reply(replies[request_id][0].body) for request_id in ids]
    expected = [("ok", n, f"{n}: {text}") for n, text in enumerate(texts, start=1)]
    assert [(reply.status, reply.turn, text_of(reply)) for reply in bodies] == expected


@pytest.mark.parametrize("where", Where)
async def test_a_worker_killed_in_a_turn_applies_it_once_and_repeats_the_same_reply(
    where: Where,
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    start_worker: StartWorker,
    start_faulty_worker: StartFaultyWorker,
) -> None:
    replies = await wire.listen(topology.replies_exchange)
    texts = [f"text {number}" for number in range(TURNS)]
    ids = [await client.send(text, CTX) for text in texts]
    killed = ids[2]

    await assert_ended(await start_faulty_worker(BOT, where, killed), -signal.SIGKILL)
    # What the death left behind, so that the point is where it claims to be.
    assert await applied(store) == texts[: 2 if where is Where.BEFORE_COMMIT else 3]
    before = await replies_by_request(wire, replies)
    assert sorted(before) == sorted(ids[: 3 if where is Where.BETWEEN_PUBLISH_AND_ACK else 2])

    worker = await start_worker(BOT)
    last = await client.ask("last", CTX, timeout=ASK_SECONDS)
    assert (last.turn, text_of(last)) == (TURNS + 1, f"{TURNS + 1}: last")
    assert await worker.stop() == 0, worker.log

    assert await applied(store) == [*texts, "last"]
    after = await replies_by_request(wire, replies)
    if where is Where.BETWEEN_PUBLISH_AND_ACK:
        first, again = before[killed][0], after[killed][0]
        assert (first.body, first.properties.message_id) == (again.body, again.properties.message_id)
    assert len(after[killed]) == 1
    assert_every_turn_answered_once(before | after, ids, texts)


@pytest.mark.parametrize("where", Where)
async def test_a_worker_killed_in_every_turn_still_applies_each_once(
    where: Where,
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    start_worker: StartWorker,
    start_faulty_worker: StartFaultyWorker,
) -> None:
    replies = await wire.listen(topology.replies_exchange)
    texts = [f"text {number}" for number in range(3)]
    ids = [await client.send(text, CTX) for text in texts]
    for request_id in ids:
        await assert_ended(await start_faulty_worker(BOT, where, request_id), -signal.SIGKILL)

    worker = await start_worker(BOT)
    last = await client.ask("last", CTX, timeout=ASK_SECONDS)
    assert text_of(last) == "4: last"
    assert await worker.stop() == 0, worker.log
    assert await applied(store) == [*texts, "last"]
    assert_every_turn_answered_once(await replies_by_request(wire, replies), ids, texts)


async def test_a_request_that_kills_the_process_three_times_is_a_dead_letter_and_the_next_is_answered(
    topology: Topology, client: BrokerClient, wire: Wire, store: RedisStore, start_worker: StartWorker
) -> None:
    deadly = asyncio.create_task(client.ask(DEADLY, CTX, request_id="deadly", timeout=3 * ASK_SECONDS))
    following = asyncio.create_task(client.ask("hello", CTX, timeout=3 * ASK_SECONDS))
    for _ in range(3):
        await assert_ended(await start_worker(BOT), EXIT_CODE)
        assert await store.peek(CTX, 10) is None
        assert await wire.count(topology.dead) == 0

    worker = await start_worker(BOT)
    error, hello = await asyncio.gather(deadly, following)
    assert error.status == "error"
    assert error.error is not None
    assert error.error.code == Reason.CRASHES_WORKER
    assert (hello.status, hello.turn, text_of(hello)) == ("ok", 1, "1: hello")
    assert worker.is_running
    assert await applied(store) == ["hello"]
    [dead] = await wire.take_all(topology.dead)
    assert dead.properties.message_id == "deadly"
    assert dead.properties.headers is not None
    assert dead.properties.headers["x-switchboard-reason"] == Reason.CRASHES_WORKER
    assert dead.properties.headers["x-switchboard-attempts"] == 3
    assert await worker.stop() == 0, worker.log
