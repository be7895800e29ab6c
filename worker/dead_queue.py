"""The dead-letter queue as an operator's tools take it in hand: walked from its head, replayed, dropped from.

A walk holds everything it has seen and lets go of it at once, in order, by closing its channel; only what has a
confirmed replacement, or was to be dropped, is acknowledged before (docs/decisions/0015). One walk at a time: a second
one would get what the first does not hold, and replay it out of order.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from interfaces.brokers import Broker, Channel, Delivery, Outgoing
from interfaces.encryption import Keys
from interfaces.errors import BrokerUnavailable, QueueTaken, SwitchboardError
from interfaces.topology import Topology
from interfaces.turnstiles import Turnstiles
from worker.dead_letters import DeadLetter, new_id, read_dead_letter, replayed

TAKEN_SECONDS: Final = 10.0
"""How long a walk waits for another one to end."""

QUIET_SECONDS: Final = 1.0
"""Without a delivery, after which the broker is asked whether there is anything left."""

AT_A_TIME: Final = 64
"""Replays under way, of different contexts."""

Tell = Callable[[int, int], None]
"""Called with how many were looked at and how many there are."""


class Walk:
    """The dead letters that were in the queue when the walk began, the oldest first; iterate over it once.

    :param most: dead letters held at a time; it ends where so many are neither removed nor let go.
    """

    def __init__(self, broker: Broker, queue: str, most: int, tell: Tell) -> None:
        self._broker = broker
        self._queue = queue
        self._most = most
        self._tell = tell
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._channel: Channel | None = None
        self.total = 0
        """Dead letters in the queue when it began."""
        self.seen = 0
        self._leaving = 0

    @property
    def is_cut(self) -> bool:
        """Whether there are more behind those it could hold."""
        return self.seen < self.total and self.seen - self._leaving >= self._most

    async def begin(self) -> None:
        """Take the queue. Raises `QueueTaken` where another walk has it, `BrokerUnavailable` where it is missing."""
        before = await self._broker.queue_state(self._queue)
        if before is None:
            raise BrokerUnavailable(f"there is no queue {self._queue!r}: look at `switchboard topology show`")
        self._channel = await self._broker.consume_alone(self._queue, self._most, self._arrived.put_nowait)
        left = await self._broker.queue_state(self._queue)
        await self._verify()  # What was on its way is here now.
        # What comes later is not looked at: a replay that fails at once comes back, and would be replayed for ever.
        self.total = max(before.messages, self._arrived.qsize() + (left.messages if left is not None else 0))

    async def end(self) -> None:
        """Let go of what is held. Never raises."""
        if self._channel is not None:
            await self._channel.close()

    def check(self, delivery: Delivery) -> None:
        """Raise `BrokerUnavailable` where the delivery is known to be back in the queue."""
        if not delivery.channel.is_open:
            raise self._lost()

    def will_remove(self) -> None:
        """Count the last one as leaving: the walk goes on, for there will be room for another."""
        self._leaving += 1

    async def remove(self, delivery: Delivery) -> None:
        """Take a dead letter out of the queue for good."""
        await delivery.channel.ack(delivery)

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while self.seen < self.total and not self.is_cut:
            delivery = await self._next()
            if delivery is None:
                return
            self.seen += 1
            self._tell(self.seen, self.total)
            yield delivery

    async def _next(self) -> Delivery | None:
        while True:
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    return await self._arrived.get()
            except TimeoutError:
                await self._verify()
                state = await self._broker.queue_state(self._queue)
                if state is None or not state.messages:
                    return None if self._arrived.empty() else self._arrived.get_nowait()

    async def _verify(self) -> None:
        if self._channel is None or not await self._channel.verify():
            raise self._lost()

    def _lost(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"queue {self._queue!r} was lost while it was looked through")


@asynccontextmanager
async def walking(broker: Broker, topology: Topology, most: int, tell: Tell = lambda *_: None) -> AsyncIterator[Walk]:
    """A walk through the dead letters; waits for a while where another one is under way. Raises as `Walk.begin`."""
    walk = Walk(broker, topology.dead, most, tell)
    try:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(QueueTaken),
            stop=stop_after_delay(TAKEN_SECONDS),
            wait=wait_fixed(0.1),
            reraise=True,
        )
        await retrying(walk.begin)
        yield walk
    finally:
        await walk.end()


class Replay:
    """Publishes the requests of dead letters again, those of a slot one after the other, and then removes them.

    The first that does not get through ends it: what is behind it, in its context or in others, stays where it is.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        matches: Callable[[DeadLetter], bool],
        *,
        user: str | None = None,
        run_again: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self._broker = broker
        self._topology = topology
        self._matches = matches
        self._user = user
        self._run_again = run_again
        self._keys = keys
        self._turnstiles = Turnstiles()
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._failure: SwitchboardError | None = None
        self.ids: list[tuple[str, str]] = []
        """Of each replayed request the id it had, and the one it has now."""
        self.kept: list[DeadLetter] = []
        """Dead letters that match and have an obstacle."""

    async def run(self, walk: Walk) -> None:
        """Replay every match. Raises what went wrong; whatever had no confirm by then is still a dead letter."""
        async with asyncio.TaskGroup() as group:
            try:
                async for delivery in walk:
                    letter = read_dead_letter(delivery)
                    if not self._matches(letter):
                        continue
                    if letter.obstacle is not None:
                        self.kept.append(letter)
                        continue
                    await self._gate.acquire()
                    if self._failure is not None:
                        self._gate.release()
                        break
                    walk.will_remove()
                    group.create_task(self._replay(walk, delivery, letter))
            except SwitchboardError as error:
                self._fail(error)
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: SwitchboardError) -> None:
        self._failure = self._failure or error

    async def _replay(self, walk: Walk, delivery: Delivery, letter: DeadLetter) -> None:
        try:
            # A task is started in the order it was made, so whoever is first here is first in the queue.
            async with self._turnstiles.turn(str(letter.slot)):
                if self._failure is not None:
                    return
                try:
                    # On a lost channel it is somebody else's, who may be further already.
                    walk.check(delivery)
                    await self._broker.publish(self._request(delivery, letter))
                except SwitchboardError as error:
                    self._fail(error)
                    return
                await walk.remove(delivery)
            old = letter.request_id or ""
            self.ids.append((old, new_id(old) if self._run_again else old))
        finally:
            self._gate.release()

    def _request(self, delivery: Delivery, letter: DeadLetter) -> Outgoing:
        options: dict[str, Any] = {"user": self._user, "run_again": self._run_again, "keys": self._keys}
        return replayed(self._topology, delivery, letter, **options)


async def drop(walk: Walk, digests: Collection[str]) -> int:
    """Remove the dead letters with these digests; how many there were."""
    dropped = 0
    async for delivery in walk:
        if read_dead_letter(delivery).digest in digests:
            walk.will_remove()
            await walk.remove(delivery)
            dropped += 1
    return dropped
