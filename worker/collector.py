"""How Python's cyclic garbage collector is set in a worker process.

With thousands of requests waiting in memory, the default has it walk over all of them again and again: a quarter of a
turn's processor time, and a pause each time. What a turn leaves is freed by reference counts, so the collector is asked
much less often; what cycles a bot leaves are still found (docs/decisions/0023).
"""

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""Allocations more than deallocations before the youngest objects are looked at, and the older ones each so many times
less often. Python 3.11 begins with 700, 10, 10."""


def relax_collector() -> None:
    """Call it once the bot is loaded: what is there then stays, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
