"""A seeded schedule of faults, in four tracks side by side: workers, links, operators, servers.

Each track deals its faults like a shuffled pack of cards, so all of them occur before one occurs again. A fault must
prove that it happened, and one that cannot ends the run: chaos that was not there proves nothing.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Final

from tests.chaos.workers import NOT_STARTED_YET, STOPPED_IN_ORDER, Link, WorkerSlot
from tests.chaos.world import OUTLAST_SECONDS, World
from tests.services.redis_sentinel import RedisWithSentinel

NOTICE_SECONDS: Final = 60.0
"""How long a fault may take to show its effect, on a busy machine and while other faults are there."""

PROMOTION_SECONDS: Final = 1.0
"""For RabbitMQ to give the shards of a dead worker to the next one: 6 to 22 ms where nothing else is going on."""

RESHARDING_SECONDS: Final = 180.0
"""For a change of shards that meets outages of both servers: it ends with each, and is begun again."""

REST_SECONDS: Final = (0.5, 2.5)
MEMORY_LIMIT: Final = "0.4"
DISK_LIMIT: Final = "50MB"

Fault = Callable[[World, random.Random], Awaitable[None]]


class FaultMissing(Exception):
    """A fault was made and had no effect."""


async def _until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + NOTICE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise FaultMissing(f"not within {NOTICE_SECONDS:g} s: {what}")
        await asyncio.sleep(0.02)


async def kill_worker(world: World, rng: random.Random) -> None:
    """SIGKILL, and a new process a moment later."""
    slot = rng.choice(world.slots)
    async with slot.lock:
        if (code := await slot.kill()) != -9:
            raise FaultMissing(f"{slot.name} was killed and ended with {code}")
        await asyncio.sleep(rng.uniform(0, 1))
        await slot.start()


async def freeze_worker(world: World, rng: random.Random) -> None:
    """SIGSTOP until RabbitMQ has given the worker up and every time limit is over, then SIGCONT."""
    slot = rng.choice(world.slots)
    async with slot.lock:
        slot.freeze()
        try:
            await _until(lambda: slot.is_frozen, f"{slot.name} is frozen")
            await asyncio.sleep(OUTLAST_SECONDS + rng.uniform(0, 2))
            await _until(lambda: not slot.is_connected_to_broker, f"RabbitMQ drops {slot.name}")
        finally:
            slot.thaw()
        await _until(lambda: not slot.is_frozen, f"{slot.name} goes on")


async def promote_frozen_worker(world: World, rng: random.Random) -> None:
    """A worker is frozen, then gets the shards of one that is killed, then loses them without a word.

    It wakes up with requests in its socket that others have long done, and with a link that does not tell it so.
    """
    frozen, killed = rng.sample(world.slots, k=2)
    async with frozen.lock, killed.lock:
        frozen.freeze()
        try:
            await _until(lambda: frozen.is_frozen, f"{frozen.name} is frozen")
            await killed.kill()
            await asyncio.sleep(PROMOTION_SECONDS)
            for link in frozen.brokers:
                link.pause()
            await asyncio.sleep(OUTLAST_SECONDS + rng.uniform(0, 2))
        finally:
            frozen.thaw()
        await _until(lambda: not frozen.is_frozen, f"{frozen.name} goes on")
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        for link in frozen.brokers:
            link.resume()
        await killed.start()


async def restart_workers(world: World, rng: random.Random) -> None:
    """SIGTERM to one worker after the other, each replaced before the next goes."""
    for slot in rng.sample(world.slots, k=len(world.slots)):
        async with slot.lock:
            _stopped(slot, await slot.terminate())
            await slot.start()
        await asyncio.sleep(rng.uniform(0, 0.5))


async def storm_of_guests(world: World, rng: random.Random) -> None:
    """Workers join and leave, politely or not, some before they have begun to work."""
    for _ in range(rng.randint(2, 4)):
        guest = await world.guest()
        try:
            await asyncio.sleep(rng.uniform(0, 3))
            if rng.random() < 0.5:
                await guest.kill()
            else:
                _stopped(guest, await guest.terminate())
        finally:
            await guest.close()


def _stopped(slot: WorkerSlot, code: int) -> None:
    if code not in STOPPED_IN_ORDER | {NOT_STARTED_YET}:
        raise FaultMissing(f"{slot.name} was asked to stop and ended with {code}")


async def _used_link(world: World, rng: random.Random) -> Link:
    await _until(lambda: any(link.connections for link in world.links), "some link is in use")
    return rng.choice([link for link in world.links if link.connections])


async def cut_link(world: World, rng: random.Random) -> None:
    """All connections of a link are reset; some of them again before they have recovered."""
    link = await _used_link(world, rng)
    cut = 0
    for _ in range(rng.randint(1, 3)):
        cut += link.connections
        await link.cut()
        await asyncio.sleep(rng.uniform(0, 0.3))
    if not cut:  # Whether it is connected again is no proof: an idle connection is made when it is needed.
        raise FaultMissing(f"{link.name} had no connection to cut")


async def slow_link(world: World, rng: random.Random) -> None:
    """Everything on a link takes longer."""
    while not await _carries_slowly(await _used_link(world, rng), rng):
        pass  # Its node was killed, and who used it has gone to another one.


async def _carries_slowly(link: Link, rng: random.Random) -> bool:
    carried = link.carried
    link.delay = rng.uniform(0.05, 0.4)
    try:
        await asyncio.sleep(rng.uniform(2, 5))
        await _until(lambda: link.carried > carried or not link.connections, f"{link.name} carries slowly")
    finally:
        link.delay = 0.0
    return link.carried > carried


async def stall_link(world: World, rng: random.Random) -> None:
    """A link stays connected and carries nothing, for longer than every time limit."""
    link = await _used_link(world, rng)
    link.pause()
    try:
        await asyncio.sleep(0)
        carried = link.carried
        await asyncio.sleep(OUTLAST_SECONDS + rng.uniform(0, 2))
        if link.carried != carried:
            raise FaultMissing(f"{link.name} carried something while it was stalled")
    finally:
        link.resume()


async def lose_answers(world: World, rng: random.Random) -> None:
    """A link carries everything to the server and no answer back: confirms and commits stay unknown."""
    while not await _drops_answers(await _used_link(world, rng), rng):
        pass  # As above.


async def _drops_answers(link: Link, rng: random.Random) -> bool:
    dropped = link.dropped
    link.drop_replies()
    try:
        await asyncio.sleep(rng.uniform(0.5, 4))
        await _until(lambda: link.dropped > dropped or not link.connections, f"{link.name} loses answers")
    finally:
        link.resume()
    return link.dropped > dropped


async def kill_node(world: World, rng: random.Random) -> None:
    """One node of the cluster is killed, and started again a while later; the others go on without it."""
    number = rng.randrange(len(world.cluster.nodes))
    await world.cluster.kill(number)
    await asyncio.sleep(rng.uniform(1, 5))
    await world.cluster.start(number)
    await world.cluster.in_sync()


async def restart_nodes(world: World, rng: random.Random) -> None:
    """One node after the other is stopped in order and started again, as an upgrade does it.

    Not all at once: RabbitMQ 3.10 does not always elect leaders again when every node was killed in the same moment.
    """
    for node in rng.sample(list(world.cluster.nodes), k=len(world.cluster.nodes)):
        await node.stop()
        await node.start()
        await world.cluster.in_sync()


async def restart_redis(world: World, rng: random.Random) -> None:
    """Redis is killed and started again."""
    await world.redis.kill()
    await asyncio.sleep(rng.uniform(0, 3))
    await world.redis.start()


async def fail_over_redis(world: World, rng: random.Random) -> None:
    """The primary Redis is killed, its replica takes its place, and it comes back as the replica."""
    assert isinstance(world.redis, RedisWithSentinel)
    lost = await asyncio.to_thread(world.redis.kill_primary)
    await asyncio.to_thread(world.redis.wait_failed_over, lost)
    await asyncio.sleep(rng.uniform(0, 2))
    await world.redis.start()


async def raise_memory_alarm(world: World, rng: random.Random) -> None:
    """RabbitMQ has no memory: it stops reading from whoever publishes."""
    await _raise_alarm(world, rng, "memory", "set_vm_memory_high_watermark", "0.0001", MEMORY_LIMIT)


async def raise_disk_alarm(world: World, rng: random.Random) -> None:
    """The same for the disk."""
    await _raise_alarm(world, rng, "disk", "set_disk_free_limit", "999999GB", DISK_LIMIT)


async def _raise_alarm(world: World, rng: random.Random, name: str, command: str, raised: str, normal: str) -> None:
    node = rng.choice(world.cluster.nodes)
    await node.rabbitmqctl(command, raised)
    try:
        await asyncio.sleep(rng.uniform(1, 4))
        alarms = await node.rabbitmqctl("eval", "rabbit_alarm:get_alarms().")
        if name not in alarms:
            raise FaultMissing(f"no {name} alarm: {alarms}")
    finally:
        await node.rabbitmqctl(command, normal)


async def change_shards(world: World, rng: random.Random) -> None:
    """The number of shards is changed by a command that may be killed at any point and is repeated until it is done."""
    shards = rng.choice([number for number in range(2, 13) if number != world.shards])
    for _ in range(rng.randint(0, 2)):
        process = await world.begin_resharding(shards)
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.5, 3)):
                await process.ended()
        await process.kill()
    deadline = time.monotonic() + RESHARDING_SECONDS
    while True:  # It ends with an error where a server is away.
        process = await world.begin_resharding(shards)
        try:
            async with asyncio.timeout_at(deadline - time.monotonic() + asyncio.get_running_loop().time()):
                code = await process.ended()
        except TimeoutError:
            raise FaultMissing(f"not within {RESHARDING_SECONDS:g} s: {shards} shards\n{process.log}") from None
        finally:
            await process.kill()
        if code == 0:
            world.shards = shards
            return
        await asyncio.sleep(rng.uniform(0.1, 1))


async def swap_version(world: World, rng: random.Random) -> None:
    """A worker is replaced by one of another version, which works beside those of this one from then on."""
    slot = rng.choice(world.slots)
    async with slot.lock:
        _stopped(slot, await slot.terminate())
        world.swap_version(slot)
        await slot.start()


TRACKS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "workers": (kill_worker, kill_worker, freeze_worker, promote_frozen_worker, restart_workers, storm_of_guests),
    "links": (cut_link, cut_link, slow_link, stall_link, lose_answers),
    "operators": (change_shards, swap_version),
    "servers": (kill_node, kill_node, restart_nodes, restart_redis, raise_memory_alarm, raise_disk_alarm),
}

SENTINEL_TRACKS: Final[Mapping[str, tuple[Fault, ...]]] = {
    **TRACKS,
    "servers": tuple(fail_over_redis if fault is restart_redis else fault for fault in TRACKS["servers"]),
}
"""For a world whose Redis has a replica and sentinels."""


class Nemesis:
    """Makes faults in a world. Two runs of one seed have the same faults in the same order within each track."""

    def __init__(self, world: World, seed: int, tracks: Mapping[str, tuple[Fault, ...]] = TRACKS) -> None:
        self.counts: Counter[str] = Counter()
        """Faults that happened, by name."""
        self.current: dict[str, str] = {}
        """What each track is doing now."""
        self.diary: list[str] = []
        """When each fault began and ended, seconds since the start."""
        self._world = world
        self._seed = seed
        self._tracks = tracks
        self._began = time.monotonic()

    async def run(self, seconds: float) -> None:
        """Make faults for so long, and at least each of them once. Raises `FaultMissing` (in a group)."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as running:
            for track, faults in self._tracks.items():
                running.create_task(self._run(track, faults, self._began + seconds), name=f"nemesis of {track}")

    async def _run(self, track: str, faults: tuple[Fault, ...], end: float) -> None:
        rng = random.Random(f"{self._seed} {track}")
        for turn in count():
            for fault in rng.sample(faults, k=len(faults)):
                await asyncio.sleep(rng.uniform(*REST_SECONDS))
                if turn > 0 and time.monotonic() > end:
                    return
                await self._make(track, fault, rng)

    async def _make(self, track: str, fault: Fault, rng: random.Random) -> None:
        name = fault.__name__.replace("_", " ")
        self.current[track] = name
        began = time.monotonic() - self._began
        try:
            # Its own numbers: however many a fault draws, the faults after it stay the same.
            await fault(self._world, random.Random(rng.random()))
            self.counts[name] += 1
        finally:
            del self.current[track]
            self.diary.append(f"{began:8.3f} - {time.monotonic() - self._began:8.3f}  {track}: {name}")
