"""Which step of which turn a process is to die before, and what each turn has done so far.

A crash that a test asks for and that never comes would let the test pass for the wrong reason: it fails at the end.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Step = Literal["load", "run", "commit", "publish", "ack"]
"""What a turn does, in this order (docs/decisions/0002)."""

STEPS: Final[tuple[Step, ...]] = get_args(Step)


class CrashMissed(AssertionError):
    """A crash that the test asked for did not happen, so the test has shown nothing."""


@dataclass(slots=True, eq=False)
class TurnTrace:
    """What has been seen of one request's turn, over all processes that worked at it."""

    ctx_id: str
    steps: Counter[Step] = field(default_factory=Counter)
    """How often each step was begun."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the request is acknowledged."""


@dataclass(slots=True, eq=False)
class Crash:
    """A crash to come: the process dies when a turn, of dialog `ctx_id` where given, is about to take a step."""

    before: Step
    ctx_id: str | None
    times: int
    happened: int = 0
    """How often it has happened."""

    def is_due(self, step: Step, ctx_id: str) -> bool:
        """Whether the process dies here."""
        return self.happened < self.times and step == self.before and self.ctx_id in (None, ctx_id)

    def require_happened(self) -> None:
        """Raise `CrashMissed` where it is still to come."""
        if self.happened < self.times:
            whose = "any user" if self.ctx_id is None else f"user {self.ctx_id!r}"
            seen = f"happened {self.happened} of {self.times} times" if self.happened else "never happened"
            raise CrashMissed(f"the crash before {self.before!r} of a turn of {whose} {seen}: no turn got there")
