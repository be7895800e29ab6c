"""Keeps the shards spread over the living workers: announces this one, ranks all, and adapts what it consumes.

A shard changes hands in steps that each worker takes by itself, seeing what the others say of themselves: its next
owner consumes it and waits; nobody else waits before it; then its owner closes the channel, and the broker promotes the
one that waits. While Redis is away the assignment is frozen, and nobody lets go of what it has.
"""

import asyncio
import logging
from collections.abc import Mapping

from interfaces.encryption import Keys
from interfaces.errors import StoreUnavailable, Unavailable
from interfaces.rabbitmq import RabbitMQMessengerInterface
from worker.generations import Generations
from worker.members import Identity, Member, Rate, read_members
from worker.ranking import rank
from worker.stores import ContextStore

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
LIFE_SECONDS = 5.0
"""Ten missed beats: longer than a pause of a busy machine, shorter than anybody waits for balance. A dead worker's
shards do not wait for this, the broker promotes their standbys at once."""

HAND_OVER_SECONDS = 10.0
"""How long an owner waits for the next one to be in line before it lets go all the same."""

BEATS_TO_BELIEVE = 4
"""Heartbeats of an owner, after the broker has passed it over, until its standby believes that it lives and lets go. A
dead one is on the list for as long as its last heartbeat lasts, and its standby must not let go for it."""


class Membership:
    """One worker's part in spreading the shards of `interface`."""

    def __init__(
        self,
        store: ContextStore,
        interface: RabbitMQMessengerInterface,
        generations: Generations,
        keys: Keys | None = None,
    ) -> None:
        self._store = store
        self._interface = interface
        self._generations = generations
        self._name = interface.name
        self._owned: set[str] = set()
        self._frozen_until = 0.0
        self._letting_go: dict[str, float] = {}
        self._passed_over: dict[str, int] = {}
        self._beats = 0
        self._identity = Identity(keys)
        self._rate = Rate()
        self.adapted = asyncio.Event()
        """Set once the first list of workers has been seen."""

    @property
    def owned(self) -> list[str]:
        """Request queues this worker says it is the owner of."""
        return sorted(self._owned)

    async def run(self) -> None:
        """Announce and adapt, until cancelled."""
        while True:
            members = await self._beat()
            if members is not None and asyncio.get_running_loop().time() >= self._frozen_until:
                self._interface.want(self._adapt(members))
                self.adapted.set()
            await asyncio.sleep(BEAT_SECONDS)

    async def leave(self) -> None:
        """Take this worker off the list, so that the others share its shards at once."""
        try:
            await self._store.withdraw(self._name)
        except StoreUnavailable as error:
            logger.info("could not withdraw, the others will notice within %g s: %s", LIFE_SECONDS, error)

    async def _beat(self) -> dict[str, Member] | None:
        announcing = self._store.announce(self._name, self._said().model_dump_json().encode(), LIFE_SECONDS)
        try:
            living, _ = await asyncio.gather(announcing, self._generations.refresh())
        except Unavailable as error:  # of the broker too: it is asked where the store has lost the plan
            now = asyncio.get_running_loop().time()
            if now >= self._frozen_until:
                logger.warning("workers cannot see each other, shards stay where they are: %s", error)
            # Back again, the list holds only who was quickest to announce itself: wait until everybody has.
            self._frozen_until = now + LIFE_SECONDS
            return None
        return read_members(living)

    def _said(self) -> Member:
        now = asyncio.get_running_loop().time()
        self._beats += 1
        unsettled = self._interface.unsettled
        return self._identity.member(
            beat=self._beats,
            consuming=self.owned,
            subscribed=self._interface.consumed,
            turns=self._interface.settled,
            rate=self._rate.update(now, self._interface.settled),
            unsettled={queue: len(times) for queue, times in unsettled.items()},
            oldest={queue: round(now - times[0], 3) for queue, times in unsettled.items()},
        )

    def _adapt(self, members: Mapping[str, Member]) -> set[str]:
        """The queues to consume from now on. Notes which of them this worker owns."""
        places = rank(
            self._generations.consumable,
            {name: member.consuming for name, member in members.items()},
            {name: member.subscribed for name, member in members.items()},
        )
        others = {name: member for name, member in members.items() if name != self._name}
        subscribed = set(self._interface.consumed)
        owned_elsewhere = {shard for member in others.values() for shard in member.consuming}
        wanted: set[str] = set()
        owned: set[str] = set()
        for shard, place in places.items():
            if place.primary == self._name:
                wanted.add(shard)
                # Said only once the owner before has let go: two that say it would be ranked against each other.
                if shard in self._owned or (shard in subscribed and shard not in owned_elsewhere):
                    owned.add(shard)
            elif shard in self._owned and not self._may_let_go(shard, place.primary, others):
                wanted.add(shard)
                owned.add(shard)
            elif (
                place.standby == self._name
                and shard not in self._owned
                and self._may_wait(shard, others[place.primary])
            ):
                wanted.add(shard)
        self._letting_go = {shard: since for shard, since in self._letting_go.items() if shard in owned}
        self._owned = owned
        return wanted

    def _may_wait(self, shard: str, owner: Member) -> bool:
        """Whether to wait behind `owner`, and not before it: the broker makes the one active that was there first.

        Where the broker has passed the owner over, because its connection was lost for a moment, the one that waited
        gives the shard back.
        """
        if shard not in self._interface.delivering:
            self._passed_over.pop(shard, None)
            return shard in owner.consuming
        if shard not in owner.subscribed:
            return True
        return owner.beat < self._passed_over.setdefault(shard, owner.beat) + BEATS_TO_BELIEVE

    def _may_let_go(self, shard: str, successor: str, others: Mapping[str, Member]) -> bool:
        """Whether the successor, and only it, waits for the shard; or this has lasted too long.

        Workers that started together may both say they own it. The one it does not fall to lets go at once: each
        waiting for the other to leave the line, they would wait for ever.
        """
        if shard in others[successor].consuming:
            return True
        in_line = [name for name, member in others.items() if shard in member.subscribed]
        now = asyncio.get_running_loop().time()
        return in_line == [successor] or now - self._letting_go.setdefault(shard, now) > HAND_OVER_SECONDS
