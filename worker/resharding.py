"""Changing the number of shards while publishers publish and workers work: the operator's side of it.

A new generation of queues is declared, the slots move to it one by one, a marker goes to the end of each old queue, and
once all are passed the old queues go. Workers follow the plan in the store by themselves. Every step may be repeated:
whoever is interrupted, by whatever, does the same again from the first step that is not done (docs/decisions/0010).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from interfaces.brokers import Broker, Delivery, Outgoing
from interfaces.errors import BrokerUnavailable, MisuseError
from interfaces.markers import is_marker, marker
from interfaces.topology import SLOTS, Topology
from worker.generations import read_or_make_plan
from worker.plan import Plan
from worker.stores import ContextStore

SLOTS_A_STEP = 32

STRAGGLER_SECONDS = 1.0
"""Between the last move of a slot and the markers. A publisher's channel in the broker that has looked up the old
binding needs microseconds to put its request into the old queue; this is for a broker under load."""

POLL_SECONDS = 0.1
MARK_AGAIN_SECONDS = 10.0
"""A worker that dies after it acknowledged a marker, with a store that lost its note, leaves nobody who knows."""

RELEASE_SECONDS = 60.0


class Step(StrEnum):
    """What is being done, as it is shown to the operator."""

    MOVE = "slots moved"
    DRAIN = "old queues passed"
    RETIRE = "old queues deleted"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is."""

    step: Step
    done: int
    total: int


class Resharding:
    """One change of the number of shards of the namespace of `first`, its topology to begin with.

    :param tell: called with every bit of progress.
    """

    def __init__(
        self, broker: Broker, store: ContextStore, first: Topology, tell: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._broker = broker
        self._store = store
        self._first = first
        self._tell = tell
        self.stragglers = 0
        """Requests that came to an old queue after its marker. They were published again, so one of a context that
        had others since may have lost its place."""

    async def run(self, shards: int, prefetch: int | None = None) -> Plan:
        """Change to `shards`, or finish a change to it that was begun; the plan afterwards.

        `prefetch` is that of the new queues; as before where it is `None`.

        Raises `MisuseError` where a change to another number is under way, and `Unavailable` or `BrokerRefused` where
        a server is away or refuses: then the same call goes on where this one ended.
        """
        plan = await self._begin(shards, prefetch)
        if plan.previous is None:
            return plan
        previous, current = plan.previous.of(self._first), plan.current.of(self._first)
        if plan.moving:
            await self._move(previous, current)
            await self._drain(previous, current)
            plan = await self._change(plan, plan.retiring())
        await self._retire(previous)
        return await self._change(plan, plan.settled())

    async def _begin(self, shards: int, prefetch: int | None) -> Plan:
        plan, _ = await read_or_make_plan(self._broker, self._store, self._first)
        is_asked_for = plan.current.shards == shards and prefetch in (None, plan.current.prefetch)
        if plan.previous is not None and not is_asked_for:
            raise MisuseError(
                f"a change from {plan.previous.shards} to {plan.current.shards} shards is under way: finish it first, "
                f"with `switchboard topology reshard --shards {plan.current.shards}`"
            )
        if is_asked_for:
            return plan
        # Before anything is declared: a worker that starts in between must not take the new queues for a mistake.
        return await self._change(plan, plan.moved_to(shards, prefetch))

    async def _change(self, plan: Plan, new: Plan) -> Plan:
        if not await self._store.change_plan(plan.write(), new.write()):
            raise MisuseError(
                "the plan of the request queues was changed by somebody else meanwhile: only one change can be made at "
                "a time. Look at `switchboard topology show`"
            )
        return new

    async def _move(self, previous: Topology, current: Topology) -> None:
        await self._broker.declare(current)
        for first in range(0, SLOTS, SLOTS_A_STEP):
            self._tell(Progress(Step.MOVE, first, SLOTS))
            await self._broker.move_slots(range(first, first + SLOTS_A_STEP), previous, current)
        self._tell(Progress(Step.MOVE, SLOTS, SLOTS))
        await asyncio.sleep(STRAGGLER_SECONDS)

    async def _drain(self, previous: Topology, current: Topology) -> None:
        """Have every old queue passed: all its requests settled, so that the new ones may begin."""
        loop = asyncio.get_running_loop()
        marked_at: dict[str, float] = {}
        while True:
            _, passed = await self._store.read_plan()
            waiting = [queue for queue in previous.shard_queues if queue not in passed]
            self._tell(Progress(Step.DRAIN, previous.shards - len(waiting), previous.shards))
            if not waiting:
                return
            for queue in waiting:
                if loop.time() - marked_at.get(queue, float("-inf")) > MARK_AGAIN_SECONDS:
                    await self._mark(queue, current)
                    marked_at[queue] = loop.time()
            await asyncio.sleep(POLL_SECONDS)

    async def _mark(self, queue: str, current: Topology) -> None:
        if await self._broker.queue_state(queue) is None:
            await self._store.note_passed(queue)  # Somebody deleted it: there is nothing in it to wait for.
        else:
            await self._broker.publish(marker(queue, current))

    async def _retire(self, previous: Topology) -> None:
        """Delete the old queues, once nobody consumes them: a consumer that loses its queue would look for it."""
        for done, queue in enumerate(previous.shard_queues):
            self._tell(Progress(Step.RETIRE, done, previous.shards))
            await self._until_released(queue)
            await self._republish_stragglers(queue)
            await self._broker.delete_queue(queue)
        self._tell(Progress(Step.RETIRE, previous.shards, previous.shards))

    async def _until_released(self, queue: str) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                while (state := await self._broker.queue_state(queue)) is not None and state.consumers:  # noqa: ASYNC110 - a broker tells its state only when asked
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise BrokerUnavailable(
                f"queue {queue!r} is passed, and still consumed after {RELEASE_SECONDS:g} s: by a worker that cannot "
                "reach Redis, or is too old to know of generations. Stop it and run the same command again"
            ) from None

    async def _republish_stragglers(self, queue: str) -> None:
        while (state := await self._broker.queue_state(queue)) is not None and state.messages:
            arrived: asyncio.Queue[Delivery] = asyncio.Queue()
            channel = await self._broker.consume(queue, 1, arrived.put_nowait)
            try:
                async with asyncio.timeout(MARK_AGAIN_SECONDS):
                    delivery = await arrived.get()
                if not is_marker(delivery):
                    await self._broker.publish(_again(delivery))
                    self.stragglers += 1
                await channel.ack(delivery)
            except TimeoutError:
                continue  # It expired in between: look again.
            finally:
                await channel.close()


def _again(delivery: Delivery) -> Outgoing:
    # RabbitMQ accepts a user id only from the user it names.
    properties = replace(delivery.properties, user_id=None)
    return Outgoing(delivery.exchange, delivery.routing_key, delivery.body, properties)
