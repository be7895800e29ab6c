"""How many copies a commit must have before it counts: the command that waits for them, and what its answer means.

`WAIT` and `WAITAOF` vouch for what was written *on their own connection* before them, so they travel right behind the
commits, and whatever wrote nothing there is vouched for in vain. Neither is consensus (docs/durability.md). Used by the
pipelines that carry commits.
"""

from dataclasses import dataclass
from typing import Any

from interfaces.errors import StoreRefused
from worker.stores import Durability
from worker.stores.redis_errors import REFUSED, NotDurableError

WAITAOF_VERSION = (7, 2)
"""Oldest version of Redis that has `WAITAOF`. Every Valkey has it, and says it is like Redis 7.2.4."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The command that follows commits, and what it must answer."""

    fsyncs: int | None
    """Copies on the primary's own disk, 0 or 1; `None` where no disk is asked for."""
    replicas: int
    milliseconds: int

    @property
    def words(self) -> tuple[bytes, ...]:
        """The command."""
        if self.fsyncs is None:
            return b"WAIT", b"%d" % self.replicas, b"%d" % self.milliseconds
        return b"WAITAOF", b"%d" % self.fsyncs, b"%d" % self.replicas, b"%d" % self.milliseconds

    def shortfall(self, answer: Any) -> Exception | None:
        """`None` where `answer` confirms the commits, else the error of each of them."""
        if isinstance(answer, REFUSED):
            return answer
        if isinstance(answer, Exception):
            return NotDurableError(f"the commit could not be confirmed: {answer}")
        fsyncs, replicas = (0, answer) if self.fsyncs is None else answer
        if fsyncs < (self.fsyncs or 0):
            return NotDurableError(f"not on the primary's disk within {self.milliseconds} ms")
        if replicas < self.replicas:
            where = "" if self.fsyncs is None else "the disks of "
            return NotDurableError(
                f"on {where}{replicas} of {self.replicas} replicas after {self.milliseconds} ms: look at the replicas, "
                "or lower SWITCHBOARD_DURABILITY"
            )
        return None


def confirmation_for(durability: Durability, replicas: int, timeout: float) -> Confirmation | None:
    """What commits have to wait for, at most half of `timeout` (seconds); `None` where the primary's answer will do."""
    # Half, for the connection's own limit must not run out first: 0 would wait for ever.
    milliseconds = max(1, int(timeout * 500))
    if durability is Durability.PRIMARY:
        return None
    if durability is Durability.REPLICA:
        return Confirmation(None, replicas, milliseconds)
    return Confirmation(1, replicas if durability is Durability.REPLICA_DISK else 0, milliseconds)


def refuse_without_disk(version: tuple[int, ...], persistence: dict[str, Any]) -> None:
    """Raise `StoreRefused` where a server cannot say what is on its disk. `persistence` is that section of INFO."""
    if version < WAITAOF_VERSION:
        raise StoreRefused(
            f"SWITCHBOARD_DURABILITY asks for the disk, and Redis {'.'.join(map(str, version))} cannot tell what is on "
            "its disk: use 7.2 or later, or Valkey; or set `appendfsync always` there and SWITCHBOARD_DURABILITY to "
            "primary or replica"
        )
    if not int(persistence.get("aof_enabled", 0)):
        raise StoreRefused(
            "SWITCHBOARD_DURABILITY asks for the disk, and Redis keeps no append-only file: set `appendonly yes` there "
            "(CONFIG SET appendonly yes, and in its configuration file)"
        )
