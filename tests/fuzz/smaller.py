"""Finds in a batch that failed those requests which fail alone, and makes one as small as it still fails."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from interfaces.brokers import Properties
from tests.fuzz.mutation import Mutant
from tests.fuzz.whole_worker import run_batch

MOST = 5
"""Reproducers of one batch: the others are most likely of the same kind."""
TRIES = 300


def failing_alone(mutants: Sequence[Mutant], app: Any) -> Iterator[Mutant]:
    """Those that fail without the others, a few of them."""
    found = 0
    for mutant in mutants:
        if found < MOST and fault_of(mutant, app) is not None:
            found += 1
            yield mutant


def fault_of(mutant: Mutant, app: Any) -> str | None:
    """The first thing wrong with a request alone."""
    faults = asyncio.run(run_batch([mutant], app)).faults
    return faults[0] if faults else None


def made_smaller(mutant: Mutant, app: Any) -> tuple[Mutant, str]:
    """A request that fails with as little of body and properties as was found, and its fault."""
    tries = TRIES
    for name in Properties.__slots__:
        smaller = _without(mutant, name)
        if name != "message_id" and fault_of(smaller, app) is not None:
            mutant = smaller
    length = len(mutant.request.body) // 2
    while length and tries > 0:
        for start in range(0, len(mutant.request.body), length):
            tries -= 1
            body = mutant.request.body
            smaller = replace(mutant, request=replace(mutant.request, body=body[:start] + body[start + length :]))
            if tries > 0 and fault_of(smaller, app) is not None:
                mutant = smaller
        length //= 2
    return mutant, fault_of(mutant, app) or "it does not fail every time"


def _without(mutant: Mutant, name: str) -> Mutant:
    properties = replace(mutant.request.properties, **{name: None})
    return replace(mutant, request=replace(mutant.request, properties=properties))
