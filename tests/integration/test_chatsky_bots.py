"""Twelve Chatsky bots over the broker, by two workers that are killed under them, answer as they do in one process.

What they answer there is told by Chatsky itself, with its own storage, in a process that runs none of this project's
code (`tests.bots.chatsky.truth`). Compared is the JSON of Chatsky's own types, to the last key: each reply, the misc
beside it, and the whole context that Redis has at the end. That turns were running when workers were killed is read
from Redis' own record of calls.
"""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from interfaces.client import BrokerClient
from interfaces.messages import Message
from interfaces.nested_loops import nested_loops_prevented
from interfaces.reply_bodies import Reply
from tests.bots.chatsky import NAMES
from tests.bots.chatsky.snapshot import snapshot
from tests.integration.conftest import Report, StartWorker
from tests.services.processes import ROOT, WorkerProcess
from tests.services.turn_watch import TurnWatch
from worker.stores.redis import RedisStore

with nested_loops_prevented():
    import chatsky

    from interfaces.bridge import to_chatsky
    from worker.chatsky.storage import TurnStorage

COPIES = 4
"""Of each dialog, every other one of which says everything at once."""

WORKERS = 2
KILLS = 2
KILLS_BEFORE = 0.6
"""Share of the replies within which the kills fall: later, there may be no turn left to be killed."""

SECONDS = 60

Told = dict[str, Any]


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, Told]]:
    """What Chatsky alone answers, by bot and dialog."""
    command = [sys.executable, "-m", "tests.bots.chatsky.truth"]
    told: dict[str, dict[str, Told]] = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    )
    return told


def plain(value: Any) -> str:
    """JSON that tells 1 from 1.0 and from true, which Python's `==` does not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def fault(turn: Told, reply: Reply) -> str | None:
    """How a reply differs from the truth; `None` where it does not."""
    message = None if reply.message is None else to_chatsky(reply.message).model_dump(mode="json")
    found = {"status": reply.status, "turn": reply.turn, "reply": message, "misc": reply.misc or {}}
    expected = {"status": "ok", **{name: turn[name] for name in ("turn", "reply", "misc")}}
    return None if plain(found) == plain(expected) else f"{plain(found)}\n  instead of\n{plain(expected)}"


async def hold(
    client: BrokerClient, ctx_id: str, told: Told, replied: Callable[[], None], *, at_once: bool
) -> list[str]:
    """Hold one dialog; what was wrong in it."""

    async def say(turn: Told) -> str | None:
        message, misc = Message.model_validate(turn["message"]), turn["update_ctx_misc"]
        reply = await client.ask(message, ctx_id, update_ctx_misc=misc, timeout=SECONDS)
        replied()
        return fault(turn, reply)

    if at_once:
        faults = await asyncio.gather(*(say(turn) for turn in told["turns"]))
    else:
        faults = [await say(turn) for turn in told["turns"]]
    return [f"{ctx_id}, turn {number}: {fault}" for number, fault in enumerate(faults, start=1) if fault]


class Killer:
    """Kills a worker by SIGKILL at each of some numbers of replies, and has another one started in its place."""

    def __init__(
        self, workers: list[WorkerProcess], start: Callable[[], Awaitable[WorkerProcess]], replies: int
    ) -> None:
        self._workers = workers
        self._start = start
        self._random = random.Random(f"{replies} replies")
        self._at = set(self._random.sample(range(replies // 10, int(KILLS_BEFORE * replies)), KILLS))
        self._replies = 0
        self._starting: set[asyncio.Task[None]] = set()
        self.killed = 0

    def replied(self) -> None:
        """Count a reply, and kill at once where it is one to kill at."""
        self._replies += 1
        if self._replies in self._at:
            working = [worker for worker in self._workers if worker.is_running and "ready: " in worker.log]
            worker = self._random.choice(working or self._workers)
            self._workers.remove(worker)
            self._starting.add(asyncio.create_task(self._replace(worker)))

    async def _replace(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self.killed += 1
        self._workers.append(await self._start())

    async def finished(self) -> None:
        """Wait until all replacements are started."""
        await asyncio.gather(*self._starting)


async def stored(store: RedisStore, ctx_id: str) -> Told:
    """The whole context in Redis, as Chatsky sees it."""
    context: Told = json.loads(
        json.dumps(await snapshot(await chatsky.Context.connected(TurnStorage(store), id=ctx_id)))
    )
    return context


@pytest.mark.parametrize("name", NAMES)
async def test_a_bot_answers_and_remembers_what_it_does_in_one_process(
    name: str,
    truth: dict[str, dict[str, Told]],
    namespace: str,
    redis_url: str,
    client: BrokerClient,
    store: RedisStore,
    start_worker: StartWorker,
    report: Report,
) -> None:
    dialogs = {f"{ctx_id} {copy}": told for ctx_id, told in truth[name].items() for copy in range(COPIES)}
    turns = sum(len(told["turns"]) for told in dialogs.values())
    workers = await asyncio.gather(*(start_worker(f"tests.bots.chatsky.{name}:pipeline") for _ in range(WORKERS)))
    await asyncio.gather(*(worker.ready() for worker in workers))
    killer = Killer(list(workers), lambda: start_worker(f"tests.bots.chatsky.{name}:pipeline"), turns)

    async with TurnWatch(redis_url, namespace) as watch:
        faults = await asyncio.gather(
            *(
                hold(client, ctx_id, told, killer.replied, at_once=number % 2 == 0)
                for number, (ctx_id, told) in enumerate(dialogs.items())
            )
        )
        await killer.finished()

    assert sum(faults, []) == []  # noqa: RUF017 - a few dozen lists
    for ctx_id, told in dialogs.items():
        assert plain(await stored(store, ctx_id)) == plain(told["context"]), ctx_id
    report(f"{len(dialogs)} dialogs, {turns} turns, {killer.killed} workers killed in {len(watch.interrupted)} turns")
    assert killer.killed == KILLS
    assert watch.interrupted
