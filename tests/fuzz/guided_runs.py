"""Runs the coverage-guided targets, each as a process with bounds of its own, and reads what they have done."""

import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interfaces.references import PREFIX
from interfaces.topology import slot
from tests.hostile_inputs import HostileInput, load_corpus

TARGETS: Final = {"body": 6, "request": 4, "reply": 2, "reference": 1, "chatsky": 2}
"""Names in `tests.fuzz.guided` and their shares of the runs."""
LARGEST: Final = 4000


@dataclass(frozen=True, slots=True)
class GuidedRun:
    """What one target has come to."""

    target: str
    executions: int
    coverage: int
    crash: str | None


def is_available() -> bool:
    """Whether `atheris` can be imported."""
    return importlib.util.find_spec("atheris") is not None


def run_guided(count: int, seconds: float, seed: int, directory: Path) -> Iterator[GuidedRun]:
    """Run each target for its share of `count` and `seconds`; `directory` keeps what they find."""
    corpus = [hostile for hostile in load_corpus() if len(hostile.body) <= LARGEST]
    for target, share in TARGETS.items():
        part = share / sum(TARGETS.values())
        seeds = directory / f"seeds-{target}"
        seeds.mkdir(parents=True, exist_ok=True)
        for hostile in corpus:
            (seeds / hostile.name).write_bytes(_seed(target, hostile))
        bounds = [f"-runs={math.ceil(count * part)}", f"-max_total_time={max(1, int(seconds * part))}"]
        options = [f"-seed={seed}", f"-max_len={LARGEST}", f"-artifact_prefix={directory}/{target}-", "-timeout=10"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", target, *bounds, *options, "-print_final_stats=1", str(seeds)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        yield _read(target, done)


def _seed(target: str, hostile: HostileInput) -> bytes:
    if target == "reference":
        return f"{PREFIX}{'0' * 64}:{len(hostile.name)}".encode()
    if target == "request":
        return b"%d\napplication/json\n\nid\nns.reply.x\nid\n--\n" % slot(hostile.ctx_id) + hostile.body
    return hostile.body


def _read(target: str, done: "subprocess.CompletedProcess[str]") -> GuidedRun:
    executions = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    crash = None if done.returncode == 0 else done.stderr[-3000:]
    return GuidedRun(target, int(executions[-1]) if executions else 0, int(coverage[-1]) if coverage else 0, crash)
