"""What makes each alert fire, done for real: servers stopped, workers killed and frozen, bots that fail and hang.

A cause begins on a world that is well and does its harm; it may go on with it until it is cancelled.
`tests/alerts/__main__.py` looks whether the alerts that it is to bring fire, and did not before.
"""

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.alerts.world import World, until

Harm = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause, and the alerts that tell of it."""

    what: str
    alerts: tuple[str, ...]
    harm: Harm
    workers: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    url_options: str = ""
    seconds: float = 60.0
    """Within which all of them must fire, with seconds for the rules' minutes."""


async def redis_stopped(world: World) -> None:
    await world.servers.redis.stop()


async def rabbitmq_stopped(world: World) -> None:
    await world.servers.broker.stop()


async def worker_killed(world: World) -> None:
    await world.workers[0].kill()


async def worker_stopped(world: World) -> None:
    assert await world.workers[0].stop() == 0


async def connections_closed(world: World) -> None:
    while True:
        await world.servers.broker.rabbitmqctl("close_all_connections", "as a network does")
        await asyncio.sleep(1)


async def permission_taken(world: World) -> None:
    broker = world.servers.broker
    await broker.rabbitmqctl("set_permissions", "guest", ".*", ".*", "^nothing$")
    # What consumes is asked for its permission when it begins to.
    for line in (await broker.rabbitmqctl("-q", "list_connections", "pid", "client_properties")).splitlines():
        pid, _, properties = line.partition("\t")
        if "switchboard consume" in properties:
            await broker.rabbitmqctl("close_connection", pid, "permissions have changed")


async def turns_waiting(world: World) -> None:
    await world.send("wait 600", contexts=8)  # as many turns as may run at a time


async def more_than_it_can_do(world: World) -> None:
    await world.send(*["wait 0.2"] * 40, contexts=50)


async def bot_failing(world: World) -> None:
    while True:
        await world.send("fail")


async def bot_failing_at_first(world: World) -> None:
    while True:
        await world.send("fail once")


async def bot_blocking_long(world: World) -> None:
    await world.send("block 20")


async def bot_blocking_often(world: World) -> None:
    while True:
        await world.send("block 0.8")
        await asyncio.sleep(1)


async def worker_frozen(world: World) -> None:
    """It has turns running, loses its shards to the other worker, wakes up, and wants to commit."""
    frozen = world.workers[0]
    await world.send("wait 3", contexts=40)
    await until(lambda: world.told(0, "switchboard_turns_running") > 10, "it runs some of them")
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        taken = world.told(1, "switchboard_turns_running")
        await until(lambda: world.told(1, "switchboard_turns_running") > taken + 5, "the other worker runs them again")
        await until(lambda: world.told(1, "switchboard_turns_running") == 0, "the other worker has committed them")
    finally:
        os.kill(frozen.pid, signal.SIGCONT)


async def workers_come_and_go(world: World) -> None:
    while True:
        before = world.told(0, "switchboard_hand_overs_total")
        joined = [await world.start_worker() for _ in range(3)]
        await until(lambda: world.told(0, "switchboard_hand_overs_total") >= before + 2, "it hands over")  # noqa: B023 - asked at once
        for worker in joined:
            await worker.stop()


async def processes_killed(world: World) -> None:
    killed: set[int] = set()
    while True:
        pids = {int(pid) for pid in re.findall(r"(?m)supervisor: worker \d+: process (\d+)$", world.workers[0].log)}
        for pid in pids - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        await asyncio.sleep(0.5)


async def large_requests(world: World) -> None:
    await world.send(*["wait 5 " + "x" * 50_000] * 5, contexts=20)


async def runs_without_end(world: World) -> None:
    await world.send("ignore", contexts=2)


FEW: Final = {"concurrency": 8}

CAUSES: Final = {
    "redis": Cause(
        "Redis is stopped",
        ("SwitchboardServerUnreachable", "SwitchboardWorkerNotReady", "SwitchboardNoWorkerReady"),
        redis_stopped,
    ),
    "rabbitmq": Cause("RabbitMQ is stopped", ("SwitchboardServerUnreachable",), rabbitmq_stopped),
    "killed": Cause("one of two workers is killed by SIGKILL", ("SwitchboardWorkerDown",), worker_killed, workers=2),
    "none": Cause("the only worker is stopped", ("SwitchboardNoWorkerReady",), worker_stopped),
    "connections": Cause(
        "RabbitMQ closes all connections, again and again", ("SwitchboardReconnecting",), connections_closed
    ),
    "permission": Cause(
        "the permission to read the request queues is taken away",
        ("SwitchboardNoConsumer", "SwitchboardQueueWithoutConsumer"),
        permission_taken,
    ),
    "hanging": Cause(
        "every run of the bot waits for what never comes", ("SwitchboardTurnsStopped",), turns_waiting, settings=FEW
    ),
    "slow": Cause(
        "more is sent than the bot can do",
        ("SwitchboardQueueAgeHigh", "SwitchboardBacklog"),
        more_than_it_can_do,
        settings={"concurrency": 4, "prefetch": 20, "shards": 1},
        seconds=90.0,
    ),
    "failing": Cause(
        "the bot fails on some requests to the end",
        ("SwitchboardDeadLetters", "SwitchboardRetriesHigh"),
        bot_failing,
        settings={"retry_wait": 0.05},
    ),
    "retried": Cause(
        "the bot fails on some requests at first",
        ("SwitchboardRetriesHigh",),
        bot_failing_at_first,
        settings={"retry_wait": 0.05},
    ),
    "blocked": Cause("the bot blocks the event loop for long", ("SwitchboardEventLoopLag",), bot_blocking_long),
    "blocking": Cause("the bot blocks the event loop often", ("SwitchboardEventLoopLag",), bot_blocking_often),
    "frozen": Cause(
        "a worker is frozen (SIGSTOP) in its turns until another has them, and wakes up",
        ("SwitchboardFencedCommits",),
        worker_frozen,
        workers=2,
        url_options="?heartbeat=1",
    ),
    "restless": Cause(
        "workers start and stop beside one that stays",
        ("SwitchboardHandOversFlapping",),
        workers_come_and_go,
        seconds=90.0,
    ),
    "deadly": Cause(
        "worker processes of a supervisor are killed",
        ("SwitchboardWorkerRestarting",),
        processes_killed,
        arguments=("--processes", "2"),
    ),
    "large": Cause(
        "a worker has taken as many bytes as it may",
        ("SwitchboardInFlightBytesFull",),
        large_requests,
        settings={"in_flight_bytes": 1024 * 1024, "concurrency": 4},
    ),
    "endless": Cause(
        "runs of the bot ignore that they are cancelled",
        ("SwitchboardLeftBehind",),
        runs_without_end,
        settings={"turn_timeout": 0.5, "attempts": 1},
    ),
}
