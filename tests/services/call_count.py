"""Counts the function calls of a block of code, those written in C included: its cost, the same on any machine.

Used by the tests of what a turn costs.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Calls:
    """How many there were so far."""

    def __init__(self) -> None:
        self.number = 0


@contextmanager
def counting_calls() -> Iterator[Calls]:
    """Count those of this thread, until the block ends."""
    calls = Calls()

    def count(_frame: Any, event: str, _argument: Any) -> None:
        calls.number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
