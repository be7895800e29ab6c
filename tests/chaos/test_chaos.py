"""A slice of the chaos suite with a fixed seed. A longer run with any seed is `make chaos`.

That the suite sees what it must see is shown by `check_sabotage`, which takes minutes more (`make chaos-check`).
"""

import gc
from pathlib import Path

import pytest

from tests.chaos.nemesis import TRACKS
from tests.chaos.run import run
from tests.chaos.verdict import Plan
from tests.chaos.world import World

pytestmark = pytest.mark.timeout(420)

FAULTS = {fault.__name__.replace("_", " ") for track in TRACKS.values() for fault in track}


async def test_every_promise_holds_while_anything_dies(tmp_path: Path) -> None:
    async with World(tmp_path, workers=4) as world:
        verdict = await run(Plan(seconds=60, seed=1, contexts=100, rate=80), world, tmp_path)
    gc.collect()
    assert verdict.holds, str(verdict)
    assert verdict.faults.keys() == FAULTS
    assert verdict.turns > 1000
    assert verdict.repeated_replies > 0, "no fault met a request between its commit and its acknowledgement"
