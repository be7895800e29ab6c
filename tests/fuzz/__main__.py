"""Fuzzes the wire decoder and the whole worker: `python -m tests.fuzz --count N --seed S [--report FILE]`.

Bounded in count and time. What breaks a promise is made smaller and written as a file for `tests/corpus`, to be named
and given its outcome. Ends with 1 where anything was found.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interfaces.nested_loops import nested_loops_prevented
from tests.fuzz.guided_runs import is_available, run_guided
from tests.fuzz.mutation import Mutant, Mutator
from tests.fuzz.page import Run, page
from tests.fuzz.reproducer import corpus_file
from tests.fuzz.smaller import failing_alone, made_smaller
from tests.fuzz.whole_worker import REPLY_QUEUE, TOPOLOGY, Verdict, run_batch, say_back
from tests.hostile_inputs import load_corpus

BATCH = 500
PIPELINE_SHARE = 0.1
"""A Chatsky pipeline takes several times as long for a turn, and differs only in what runs it."""
SHOWN = 20


def main() -> int:
    """Fuzz, tell, write; the exit code."""
    options = _options()
    sys.stdout.write(f"seed {options.seed}\n")
    for name in ("interfaces", "worker", "chatsky"):
        logging.getLogger(name).setLevel(logging.ERROR)
    run = Run(f"python -m tests.fuzz --count {options.count} --seed {options.seed}", options.seed, len(load_corpus()))
    began = time.monotonic()
    guided = options.guided and is_available()
    of_worker = int(options.count * (0.5 if guided else 1))
    pipeline = _pipeline()
    shares = {"handler": (say_back, 1 - PIPELINE_SHARE), "pipeline": (pipeline, PIPELINE_SHARE)}
    time_of_worker = options.seconds * (0.6 if guided else 1)
    for bot, (app, share) in shares.items():
        _fuzz_worker(run, bot, app, int(of_worker * share), time_of_worker * share, options)
    if guided:
        left = options.seconds - (time.monotonic() - began)
        run.guided = list(run_guided(options.count - of_worker, left, options.seed, options.findings))
        run.findings += [f"{guided_run.target}: {guided_run.crash}" for guided_run in run.guided if guided_run.crash]
    run.seconds = time.monotonic() - began
    if options.report:
        options.report.write_text(page(run))
    sys.stdout.write("\n".join(run.findings[:SHOWN]) + f"\n{run.total} inputs, {len(run.findings)} findings\n")
    return 0 if run.holds else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=10_000, help="inputs to try")
    parser.add_argument("--seconds", type=float, default=900, help="time it may take")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--report", type=Path, help="page to write")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "switchboard-fuzz")
    parser.add_argument("--guided", action=argparse.BooleanOptionalAction, default=True, help="with atheris, if there")
    return parser.parse_args()


def _pipeline() -> Any:
    with nested_loops_prevented():
        from tests.bots.chatsky_counting import pipeline
    return pipeline


def _fuzz_worker(run: Run, bot: str, app: Any, count: int, seconds: float, options: argparse.Namespace) -> None:
    mutator = Mutator(options.seed + len(bot), TOPOLOGY, REPLY_QUEUE)
    total = run.workers[bot] = Verdict()
    run.published[bot] = 0
    until = time.monotonic() + seconds
    while run.published[bot] < count and time.monotonic() < until:
        mutants = [mutator.mutant() for _ in range(min(BATCH, count - run.published[bot]))]
        verdict = asyncio.run(run_batch(mutants, app))
        run.published[bot] += len(mutants)
        total.settled += verdict.settled
        total.answered += verdict.answered
        total.refused_by_broker += verdict.refused_by_broker
        total.reasons += verdict.reasons
        total.faults += verdict.faults
        if verdict.faults:
            run.findings += [f"{bot}: {fault}" for fault in verdict.faults]
            if len(run.findings) <= SHOWN:
                _write_reproducers(mutants, app, options.findings)


def _write_reproducers(mutants: list[Mutant], app: Any, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for mutant in failing_alone(mutants, app):
        small, fault = made_smaller(mutant, app)
        request = small.request
        properties = {
            name: value
            for name in type(request.properties).__slots__
            if (value := getattr(request.properties, name)) is not None
        }
        text = corpus_file(f"Found by fuzzing: {fault}", "answered", request.body, properties, request.routing_key)
        path = directory / f"found-{abs(hash(text)):016x}.toml"
        path.write_text(text)
        sys.stdout.write(f"{path}: {fault}\n")


if __name__ == "__main__":
    sys.exit(main())
