"""The contenders, each a program of its own, told by the environment where the servers and queues are."""

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Task:
    """Where a contender works."""

    amqp_url: str
    redis_url: str
    queues: tuple[str, ...]
    wait: float

    def environ(self) -> dict[str, str]:
        """This, for the contender's environment."""
        return {
            "BENCH_AMQP": self.amqp_url,
            "BENCH_REDIS": self.redis_url,
            "BENCH_QUEUES": ",".join(self.queues),
            "BENCH_WAIT": str(self.wait),
        }

    @classmethod
    def from_environ(cls) -> Self:
        """The task of this process."""
        found = os.environ
        queues = tuple(found["BENCH_QUEUES"].split(","))
        return cls(found["BENCH_AMQP"], found["BENCH_REDIS"], queues, float(found["BENCH_WAIT"]))
