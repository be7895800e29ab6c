"""One chaos run: `python -m tests.chaos.run --seconds 180 --seed 7`.

Publishers publish and workers work while the nemesis makes faults; then everything is healed, the queues must run empty
within a bound, and the checker decides. Exit code 0 when every promise held, 1 when one did not or the run hung.
"""

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tests.chaos.checker import Kind, check
from tests.chaos.history import Recorder, Replied, read
from tests.chaos.nemesis import SENTINEL_TRACKS, TRACKS, Fault, Nemesis
from tests.chaos.report import page
from tests.chaos.traffic import Collector, Publishers, read_contexts
from tests.chaos.verdict import Plan, Verdict
from tests.chaos.world import World
from tests.services.servers import version_at

STALL_SECONDS = 45.0
"""Without any confirm or reply, though all is healed, before a run counts as hung. Reconnecting waits at most 5 s, a
dead connection is noticed within 4 s, and a worker notices in twice its watch that it lost a consumer."""

PROGRESS_SECONDS = 5.0


async def run(
    plan: Plan, world: World, directory: Path, *, tracks: Mapping[str, tuple[Fault, ...]] = TRACKS, tell: bool = True
) -> Verdict:
    """Run `plan` in a world that is open. Raises `FaultMissing` (in a group) where a fault had no effect."""
    verdict = Verdict(plan)
    nemesis = Nemesis(world, plan.seed, tracks)
    with Recorder(directory / "publishers.jsonl") as sending, Recorder(directory / "replies.jsonl") as replying:
        publishers = Publishers(
            world.publishers_url, world.topology, sending, contexts=plan.contexts, rate=plan.rate, seed=plan.seed
        )
        async with Collector(world.cluster.url, world.topology, replying) as collector, publishers:
            showing = asyncio.create_task(_show_progress(publishers, collector, nemesis)) if tell else None
            try:
                await nemesis.run(plan.seconds)
                await world.heal()
                verdict.hung, verdict.drained_in = await _drain(world, publishers, collector)
                codes = await world.stop_workers()
                if any(codes) and not verdict.hung:
                    verdict.hung = f"idle workers ended with {codes} when asked to stop"
            finally:
                if showing is not None:
                    showing.cancel()
    contexts = await read_contexts(world.redis.url, world.topology.namespace, publishers.ctx_ids)
    events = read([directory / "publishers.jsonl", directory / "replies.jsonl"])
    verdict.confirmed, verdict.given_up = len(publishers.confirmed), len(publishers.given_up)
    verdict.turns = sum(len(context.turns) for context in contexts.values())
    verdict.replies = sum(isinstance(event, Replied) for event in events)
    verdict.repeated_replies = verdict.replies - len(collector.answered)
    verdict.faults, verdict.diary = dict(nemesis.counts), nemesis.diary
    verdict.unasked_ends = world.unasked_ends
    verdict.violations = check(events, contexts)
    if verdict.hung:  # What still waits in a queue is not lost.
        verdict.violations = [v for v in verdict.violations if v.kind not in (Kind.LOST, Kind.NO_REPLY)]
    return verdict


async def _drain(world: World, publishers: Publishers, collector: Collector) -> tuple[str, float]:
    """Wait until every confirmed request is answered and no queue holds anything.

    Returns what hung, if anything, and the seconds that took.
    """
    began = moved = time.monotonic()
    publishers.stop()
    seen: object = None
    while True:
        depths = await world.depths()
        now = publishers.unfinished, len(publishers.confirmed), len(collector.answered), sum(depths.values())
        unanswered = publishers.confirmed - collector.answered
        if not (publishers.unfinished or unanswered or any(depths.values())):
            return "", time.monotonic() - began
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > STALL_SECONDS:
            return (
                f"nothing has moved for {STALL_SECONDS:g} s since everything was healed: {publishers.unfinished} "
                f"publishers without a confirm, {len(unanswered)} requests without a reply {sorted(unanswered)[:5]}\n"
                f"{await world.describe_queues()}"
            ), time.monotonic() - began
        await asyncio.sleep(0.5)


async def _show_progress(publishers: Publishers, collector: Collector, nemesis: Nemesis) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        now = ", ".join(sorted(nemesis.current.values())) or "no fault"
        sys.stdout.write(
            f"{time.monotonic() - began:5.0f} s  confirmed {len(publishers.confirmed):6}  "
            f"answered {len(collector.answered):6}  faults {nemesis.counts.total():3}  now: {now}\n"
        )
        sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=Plan.seconds, help="of faults; starting and draining come on top"
    )
    parser.add_argument("--seed", type=int, help="of the faults and the traffic; random where not given")
    parser.add_argument("--contexts", type=int, default=Plan.contexts)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="requests a second over all contexts")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--sentinel", action="store_true", help="Redis with a replica and sentinels, and fail-overs")
    parser.add_argument("--report", type=Path, help="Markdown file for the verdict")
    return parser.parse_args()


async def main(arguments: argparse.Namespace) -> int:
    """Run as the arguments say, print the verdict, keep the histories and logs of a run that failed."""
    main_task = asyncio.current_task()
    assert main_task is not None
    # A run that is asked to stop must still take its servers and workers down.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    plan = Plan(arguments.seconds, seed, arguments.contexts, arguments.rate)
    directory = Path(tempfile.mkdtemp(prefix="switchboard-chaos-"))
    sys.stdout.write(f"chaos: seed {seed}, histories and logs in {directory}\n")
    # Clients log every outage, and outages are what a run is made of.
    logging.basicConfig(filename=directory / "suite.log", format="%(asctime)s %(name)s %(message)s")
    logging.captureWarnings(capture=True)
    tracks = SENTINEL_TRACKS if arguments.sentinel else TRACKS
    async with World(
        directory, workers=arguments.workers, shards=arguments.shards, sentinel=arguments.sentinel
    ) as world:
        verdict = await run(plan, world, directory, tracks=tracks)
        versions = [await asyncio.to_thread(version_at, url) for url in world.server_urls]
    (directory / "verdict.json").write_text(json.dumps(asdict(verdict), indent=2) + "\n")
    sys.stdout.write(f"{verdict}\n")
    if arguments.report is not None:
        arguments.report.write_text(page(verdict, world, versions))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments())))
