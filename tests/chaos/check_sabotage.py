"""Proof that the chaos suite sees what it must see; `make chaos-check` runs it.

A worker with one safeguard switched off must be convicted, and the real one acquitted under exactly the same faults and
settings. Not collected by itself: it takes about five minutes.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import nemesis
from tests.chaos.checker import Kind
from tests.chaos.nemesis import Fault
from tests.chaos.run import run
from tests.chaos.sabotaged_worker import Safeguard
from tests.chaos.verdict import Plan, Verdict
from tests.chaos.world import WORKER, World

pytestmark = pytest.mark.timeout(420)


@dataclass(frozen=True)
class Trap:
    """Faults and settings under which a missing safeguard must show."""

    tracks: Mapping[str, tuple[Fault, ...]]
    plan: Plan
    kinds: frozenset[Kind]
    """One of these must be among the violations."""
    settings: Mapping[str, int] = field(default_factory=dict)


TRAPS = {
    # A turn sleeps in a frozen worker until the window of kept replies has moved past its request.
    Safeguard.FENCING: Trap(
        {"workers": (nemesis.freeze_worker,)},
        Plan(seconds=15, seed=3, contexts=12, rate=25),
        frozenset({Kind.DOUBLED}),
        {"prefetch": 4, "outbox": 4, "shards": 4},
    ),
    Safeguard.DEDUPLICATION: Trap(
        {"workers": (nemesis.kill_worker,), "links": (nemesis.cut_link,)},
        Plan(seconds=10, seed=4, contexts=30, rate=60),
        frozenset({Kind.DOUBLED}),
    ),
    # More is queued than prefetched, so whoever takes over begins with the later requests.
    Safeguard.HAND_OVER_BY_CLOSE: Trap(
        {"workers": (nemesis.restart_workers,)},
        Plan(seconds=10, seed=5, contexts=12, rate=50),
        frozenset({Kind.DISORDERED}),
        {"prefetch": 4, "outbox": 128, "shards": 2},
    ),
}


@pytest.mark.parametrize("safeguard", Safeguard)
async def test_a_worker_without_a_safeguard_is_convicted(safeguard: Safeguard, tmp_path: Path) -> None:
    verdict = await spring(TRAPS[safeguard], tmp_path, ("-m", "tests.chaos.sabotaged_worker", safeguard))
    assert {violation.kind for violation in verdict.violations} & TRAPS[safeguard].kinds, str(verdict)


async def test_the_real_worker_is_acquitted_with_the_smallest_windows_allowed(tmp_path: Path) -> None:
    """All faults of the traps at once; replies are kept for four turns, so that every sleep outlasts them."""
    tracks: Mapping[str, tuple[Fault, ...]] = {
        "workers": (
            nemesis.freeze_worker,
            nemesis.promote_frozen_worker,
            nemesis.kill_worker,
            nemesis.restart_workers,
        ),
        "links": (nemesis.cut_link,),
    }
    settings = {"prefetch": 4, "outbox": 4, "shards": 4}
    trap = Trap(tracks, Plan(seconds=40, seed=6, contexts=12, rate=25), frozenset(), settings)
    verdict = await spring(trap, tmp_path, WORKER)
    assert verdict.holds, str(verdict)


async def spring(trap: Trap, directory: Path, worker: tuple[str, ...]) -> Verdict:
    settings: dict[str, Any] = dict(trap.settings)
    async with World(directory, workers=3, worker=worker, app="tests.chaos.bot:answer_slowly", **settings) as world:
        verdict = await run(trap.plan, world, directory, tracks=trap.tracks)
    gc.collect()
    return verdict
