"""The request queues of a namespace whose number of shards may change while workers work, as one worker sees them.

The plan in the store says which there are. Where the store has lost it, it is found out from the broker, which holds
the queues themselves. A worker declares what the plan says and never what its own settings say: with those of
yesterday it would bind the slots to queues that nobody consumes.
"""

import logging
from dataclasses import replace

from interfaces.brokers import Broker
from interfaces.errors import BrokerRefused
from interfaces.request_queues import RequestQueues
from interfaces.topology import GENERATIONS_AHEAD, MAX_SHARDS, Topology
from worker.plan import Generation, Plan
from worker.stores import ContextStore
from worker.stores.patience import while_store_is_away

logger = logging.getLogger(__name__)


class Generations(RequestQueues):
    """The queues the plan in `store` says; `first` is declared where there are none yet."""

    def __init__(self, broker: Broker, store: ContextStore, first: Topology) -> None:
        super().__init__(broker, first)
        self._store = store
        self._plan = Plan.of(first)
        self._passed: frozenset[str] = frozenset()
        self._reported: set[str] = set()

    @property
    def consumable(self) -> list[str]:
        """The queues to consume, of two generations while one takes over from the other."""
        return self._plan.consumable(self.topology, self._passed)

    def prefetch(self, queue: str) -> int:
        """See `RequestQueues.prefetch`."""
        previous = self._plan.previous
        if previous is not None and queue in previous.of(self.topology).shard_queues:
            return previous.prefetch
        return self.topology.prefetch

    async def open(self) -> None:
        """Declare what is missing of what the plan says, and make the plan where there is none.

        Raises as `Broker.apply` does.
        """
        await while_store_is_away(self.refresh)
        await self._declare()

    async def refresh(self) -> None:
        """Read the plan. Raises `StoreUnavailable`, and where there is no plan as `Broker.apply` does."""
        plan, self._passed = await read_or_make_plan(self._broker, self._store, self.topology)
        if plan != self._plan:
            self._plan = plan
            self.topology = plan.current.of(self.topology)
            self._reported.clear()
            logger.info("request queues: %s", plan)
        for queue in self._reported - self._passed:
            # The store was set back to before the note, by a fail-over: only who has made it can repeat it.
            await self._store.note_passed(queue)

    async def mend(self, queue: str) -> None:
        """Declare the last generation again, where `queue` belongs to it; one of an older generation has had its time.

        The plan is read after the queue was found missing, so a queue that was deleted because of it is known as such.
        """
        await while_store_is_away(self.refresh)
        if queue == self.topology.dead or queue in self.topology.shard_queues:
            await self._declare()

    async def passed(self, queue: str) -> None:
        """Note in the store that an old queue is passed. The marker of a change that is over says nothing."""
        await while_store_is_away(self.refresh)
        previous = self._plan.previous
        if previous is not None and self._plan.moving and queue in previous.of(self.topology).shard_queues:
            await while_store_is_away(self._store.note_passed, queue)
            self._reported.add(queue)

    async def _declare(self) -> None:
        """Slots are bound only where a queue is missing, and its bindings with it, and never while they move.

        Bound by every worker that starts, they could go back to the old queues at the very moment they are moved. And
        bound to the new ones by a worker, after whoever changes the plan was killed, they would lead to where nobody
        consumes yet.
        """
        while True:
            plan = self._plan
            missing = [queue for queue in self.topology.shard_queues if await self._broker.queue_state(queue) is None]
            try:
                if missing and not plan.moving:
                    await self._broker.apply(self.topology)
                else:
                    await self._broker.declare(self.topology)
            except BrokerRefused:
                await while_store_is_away(self.refresh)
                if self._plan == plan:
                    raise
            else:
                return


async def read_or_make_plan(broker: Broker, store: ContextStore, first: Topology) -> tuple[Plan, frozenset[str]]:
    """The plan and the queues noted as passed. Where there is no plan, one is made from what the broker has.

    Raises `StoreUnavailable`, `StoreRefused` where the plan cannot be read, and as `Broker.apply` does.
    """
    while True:
        stored, passed = await store.read_plan()
        if stored is not None:
            return Plan.read(stored), passed
        plan = await find_plan(broker, first)
        if plan is None:
            await broker.apply(first)
            plan = Plan.of(first)
        await store.change_plan(None, plan.write())  # Whoever was first: the next reading shows whose it is.


async def find_plan(broker: Broker, topology: Topology) -> Plan | None:
    """The plan as the broker's queues tell it, `None` where there are none. Raises `BrokerUnavailable`.

    Two generations side by side count as moving, which is right or asks for one step too many.
    """
    newest = await _find_generation(broker, topology)
    if newest is None:
        return None
    current = await _count_shards(broker, newest)
    before = replace(topology, generation=newest.generation - 1)
    if before.generation < 1 or await broker.queue_state(before.shard_queue(0)) is None:
        return Plan(current=current)
    logger.error(
        "generations %d and %d of the request queues are both there, and no plan in the store: to finish the change, "
        "run `switchboard topology reshard --shards %d`",
        before.generation,
        newest.generation,
        current.shards,
    )
    return Plan(current=current, previous=await _count_shards(broker, before), moving=True)


async def _find_generation(broker: Broker, topology: Topology) -> Topology | None:
    found = None
    for generation in range(1, GENERATIONS_AHEAD + 1):
        candidate = replace(topology, generation=generation)
        if await broker.queue_state(candidate.shard_queue(0)) is not None:
            found = candidate
        elif found is not None:
            break
    return found


async def _count_shards(broker: Broker, topology: Topology) -> Generation:
    """By halving: the queues of a generation are declared from the last to the first, so they have no gaps."""
    least, most = 1, MAX_SHARDS
    while least < most:
        middle = (least + most + 1) // 2
        if await broker.queue_state(topology.shard_queue(middle - 1)) is None:
            most = middle - 1
        else:
            least = middle
    return Generation(number=topology.generation, shards=least, prefetch=topology.prefetch)
