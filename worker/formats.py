"""The formats that versions of Switchboard share while they run side by side, each with a number.

A version writes one of each and reads one or more. Both stand on the list of workers, so that `switchboard doctor`
finds who cannot work together before a request does. A new number is read by one release and written by the next, never
both at once (docs/upgrades.md; contexts came to 2 before there was a release). Used by `worker.members` and the doctor.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from interfaces.envelope import VERSION
from worker.plan import PLAN_VERSION
from worker.records import LAYOUT, OLDEST_LAYOUT

FIRST: Final = 1
"""What workers wrote and read before they said so."""

WRITES: Final[Mapping[str, int]] = {"wire": VERSION, "contexts": LAYOUT, "plan": PLAN_VERSION}

READS: Final[Mapping[str, Sequence[int]]] = {
    "wire": (VERSION,),
    "contexts": tuple(range(OLDEST_LAYOUT, LAYOUT + 1)),
    "plan": (PLAN_VERSION,),
}

TITLES: Final[Mapping[str, str]] = {
    "wire": "requests and replies",
    "contexts": "contexts",
    "plan": "the plan of the request queues",
}
"""What each is called for people."""
