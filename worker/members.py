"""What a worker says of itself on the list of living workers, for the others and for `switchboard status`.

Workers of several versions read each other: every field has a default, and one that is not known is ignored.
"""

import logging
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interfaces.encryption import PLAIN, Keys
from worker.formats import READS, WRITES

logger = logging.getLogger(__name__)


class Member(BaseModel):
    """One worker, by its own word."""

    model_config = ConfigDict(extra="ignore")

    beat: int = 0
    """How often it has said so."""
    consuming: list[str] = Field(default_factory=list)
    """Request queues it is the owner of."""
    subscribed: list[str] = Field(default_factory=list)
    """Request queues it has a consumer on, those it only waits for included."""
    host: str = ""
    pid: int = 0
    version: str = ""
    """Of the package."""
    writes: dict[str, int] = Field(default_factory=dict)
    """The number of each format it writes, by name (`worker.formats`)."""
    reads: dict[str, list[int]] = Field(default_factory=dict)
    """Those it reads."""
    keys: list[str] = Field(default_factory=list)
    """Ids of its encryption keys: the first writes, all read. Nothing where it does not say."""
    started_at: datetime | None = None
    turns: int = 0
    """Requests settled since it was started."""
    rate: float = 0.0
    """Of them a second, over the last ten seconds or so."""
    unsettled: dict[str, int] = Field(default_factory=dict)
    """Requests delivered and not settled, by request queue, those without any left out."""
    oldest: dict[str, float] = Field(default_factory=dict)
    """Seconds since the oldest of those was delivered, by request queue."""


class Identity:
    """What stays the same of a worker process, read once."""

    def __init__(self, keys: Keys | None) -> None:
        self._fixed = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version("switchboard-bots"),
            "writes": WRITES,
            "reads": READS,
            "keys": [PLAIN] if keys is None else keys.ids,
            "started_at": datetime.now(UTC).replace(microsecond=0),
        }

    def member(self, **changing: object) -> Member:
        """The worker with what has changed."""
        return Member.model_validate(self._fixed | changing)


class Rate:
    """Events a second, newer ones counting more: half of what it tells is of the last `half_life` seconds."""

    def __init__(self, half_life: float = 5.0) -> None:
        self._half_life = half_life
        self._seen: tuple[float, int] | None = None
        self._rate = 0.0

    def update(self, now: float, count: int) -> float:
        """The rate, given how many there have been in all until `now` (seconds of any clock that goes forward)."""
        if self._seen is not None and now > self._seen[0]:
            passed = now - self._seen[0]
            kept = 0.5 ** (passed / self._half_life)
            self._rate = kept * self._rate + (1 - kept) * (count - self._seen[1]) / passed
        self._seen = now, count
        return self._rate


def read_members(said: Mapping[str, bytes]) -> dict[str, Member]:
    """The workers by name. What cannot be read of one is logged and left out, the worker is not."""
    return {name: _read(name, info) for name, info in said.items()}


def _read(name: str, info: bytes) -> Member:
    try:
        return Member.model_validate_json(info)
    except ValidationError as error:
        logger.warning("worker %r says of itself what cannot be read: %s", name, error)
        return Member()
