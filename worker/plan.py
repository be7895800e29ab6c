"""The plan of a namespace's request queues: which generation is in use, and which one it is taking over from.

It lies in the store, where every worker reads it with each heartbeat and `resharding` changes it step by step. What it
says may be old by a heartbeat, never wrong: a new queue is consumed only once the old ones that fed it are passed, and
whether they are is noted beside the plan (docs/decisions/0010).
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interfaces.errors import StoreRefused
from interfaces.topology import DEFAULT_PREFETCH, MAX_PREFETCH, MAX_SHARDS, Topology

PLAN_VERSION: Final = 1


class Generation(BaseModel):
    """One generation of request queues."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    shards: int = Field(ge=1, le=MAX_SHARDS)
    prefetch: int = Field(default=DEFAULT_PREFETCH, ge=1, le=MAX_PREFETCH)

    def of(self, topology: Topology) -> Topology:
        """The same topology with the queues of this generation."""
        return replace(topology, generation=self.number, shards=self.shards, prefetch=self.prefetch)


class Plan(BaseModel):
    """What is in use, and what was before while there is anything left of it."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = PLAN_VERSION
    current: Generation
    previous: Generation | None = None
    moving: bool = False
    """Whether the previous queues still have to be passed; afterwards they only wait to be deleted."""

    def __str__(self) -> str:
        if self.previous is None:
            return f"{self.current.shards} shards, generation {self.current.number}"
        step = "under way" if self.moving else "done, old queues go"
        return f"change from {self.previous.shards} to {self.current.shards} shards {step}"

    @classmethod
    def of(cls, topology: Topology) -> "Plan":
        """The plan of a namespace in which nothing changes."""
        current = Generation(number=topology.generation, shards=topology.shards, prefetch=topology.prefetch)
        return cls(current=current)

    @classmethod
    def read(cls, stored: bytes) -> "Plan":
        """The plan as it was stored. Raises `StoreRefused` where it cannot be read."""
        try:
            return cls.model_validate_json(stored)
        except ValidationError as error:
            raise StoreRefused(f"the plan of the request queues in Redis cannot be read: {error}") from error

    def write(self) -> bytes:
        """The plan as it is stored."""
        return self.model_dump_json().encode()

    def moved_to(self, shards: int, prefetch: int | None = None) -> "Plan":
        """The plan that begins a change to another number of shards, or to another prefetch."""
        following = Generation(
            number=self.current.number + 1, shards=shards, prefetch=prefetch or self.current.prefetch
        )
        return Plan(current=following, previous=self.current, moving=True)

    def retiring(self) -> "Plan":
        """The plan once every old queue is passed: nobody consumes them any more."""
        return Plan(current=self.current, previous=self.previous)

    def settled(self) -> "Plan":
        """The plan once the old queues are deleted."""
        return Plan(current=self.current)

    def consumable(self, topology: Topology, passed: Collection[str]) -> list[str]:
        """The queues to consume: the old ones to their end, and each new one whose feeders are all passed."""
        current = self.current.of(topology)
        if self.previous is None or not self.moving:
            return current.shard_queues
        previous = self.previous.of(topology)
        # An old queue that is passed is consumed further: what a publisher had already routed to it comes late.
        released = [queue for queue, fed_by in current.feeders(previous).items() if fed_by.issubset(passed)]
        return previous.shard_queues + released
