"""What `switchboard status` shows, gathered from both servers at about the same moment.

Unacknowledged requests are the sum of what workers say, since AMQP tells nobody but their consumer; a worker that was
killed a moment ago may still be counted.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from interfaces.brokers import Broker, QueueState
from worker.cli.plans import look_up_plan
from worker.members import Member, read_members
from worker.plan import Plan
from worker.settings import Settings
from worker.stores import ContextStore

QUEUES_AT_A_TIME: Final = 16
"""Each question takes a channel of its own while it lasts."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One request queue."""

    queue: str
    state: QueueState | None
    owners: Sequence[str]
    """Workers that say it is theirs: one, or two for a moment while it changes hands."""
    standbys: Sequence[str]
    unsettled: int
    oldest: float | None
    """Seconds since the oldest of the unsettled requests was delivered."""

    @property
    def fault(self) -> str:
        """What is wrong with it, nothing where all is well."""
        if self.state is None:
            return "missing"
        if not self.state.consumers:
            return "no consumer"
        if len(self.owners) > 1:
            return "changing hands"
        return "" if self.owners else "no owner"


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment."""

    namespace: str
    at: datetime
    plan: Plan
    members: Mapping[str, Member]
    shards: Sequence[Shard]
    dead: QueueState | None

    @property
    def ready(self) -> int:
        """Requests that wait in all queues."""
        return sum(shard.state.messages for shard in self.shards if shard.state is not None)

    @property
    def unsettled(self) -> int:
        """Requests that workers hold."""
        return sum(shard.unsettled for shard in self.shards)

    @property
    def rate(self) -> float:
        """Turns a second of all workers."""
        return sum(member.rate for member in self.members.values())

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "namespace": self.namespace,
            "at": self.at,
            "plan": self.plan.model_dump(mode="json"),
            "ready": self.ready,
            "unsettled": self.unsettled,
            "turns_per_second": round(self.rate, 2),
            "dead_letters": self.dead.messages if self.dead is not None else None,
            "workers": [
                {"name": name, **member.model_dump(mode="json", exclude={"unsettled", "oldest", "beat"})}
                | {"unsettled": sum(member.unsettled.values())}
                for name, member in self.members.items()
            ],
            "shards": [
                {
                    "queue": shard.queue,
                    "ready": shard.state.messages if shard.state is not None else None,
                    "consumers": shard.state.consumers if shard.state is not None else None,
                    "unsettled": shard.unsettled,
                    "oldest_seconds": shard.oldest,
                    "owners": shard.owners,
                    "standbys": shard.standbys,
                    "fault": shard.fault or None,
                }
                for shard in self.shards
            ],
        }


async def look(broker: Broker, store: ContextStore, settings: Settings) -> Overview:
    """Gather it. Raises `Unavailable` where a server does not answer."""
    plan = await look_up_plan(broker, settings) or Plan.of(settings.topology)
    queues = plan.current.of(settings.topology).shard_queues
    if plan.previous is not None:
        queues = plan.previous.of(settings.topology).shard_queues + queues
    gate = asyncio.Semaphore(QUEUES_AT_A_TIME)

    async def state(queue: str) -> QueueState | None:
        async with gate:
            return await broker.queue_state(queue)

    asking = asyncio.gather(*(state(queue) for queue in (settings.topology.dead, *queues)))
    members = read_members(await store.living())
    dead, *states = await asking
    shards = [_shard(queue, found, members) for queue, found in zip(queues, states, strict=True)]
    at = datetime.now(UTC).replace(microsecond=0)
    return Overview(settings.namespace, at, plan, dict(sorted(members.items())), shards, dead)


def _shard(queue: str, state: QueueState | None, members: Mapping[str, Member]) -> Shard:
    owners = sorted(name for name, member in members.items() if queue in member.consuming)
    standbys = sorted(name for name, member in members.items() if queue in member.subscribed and name not in owners)
    unsettled = sum(member.unsettled.get(queue, 0) for member in members.values())
    oldest = max((member.oldest[queue] for member in members.values() if queue in member.oldest), default=None)
    return Shard(queue, state, owners, standbys, unsettled, oldest)
