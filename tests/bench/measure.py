"""One run of one contender, watched from outside: how fast replies come, and what processor time they cost."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.contenders import Task
from tests.bench.pace import Pace
from tests.bench.place import Place
from tests.bench.work import Faults, Work, faults

ROOT = Path(__file__).parents[2]
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between looks at the replies. Each look is work for the broker and this process, on the processors of who is
measured: fifty a second took 4 % of one in this process alone."""
WARM = 0.1
"""Share of the replies before the clock starts for a contender that has queues of its own, which cannot be held back:
imports and connecting are not what is measured."""
QUIET_SECONDS = 0.5
QUIET = 0.05
"""Share of a processor below which a contender that was started waits for work."""
LIMIT_SECONDS = 300
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to do the work."""

    name: str
    command: tuple[str, ...]
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)
    is_held: bool = True
    """Whether it consumes the request queues of the place, and so can be let loose once it is ready."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured."""

    contender: str
    rate: float
    """Replies a second."""
    cpu: float
    """Microseconds of processor time of the contender for each reply."""
    servers_cpu: float
    """The same of RabbitMQ and Redis."""
    others: float
    """Share of the processors that neither contender, servers nor this process used, but somebody did."""
    faults: Faults
    pace: float = 0.0
    """Microseconds that a fixed piece of work took meanwhile; see `Pace`. 0 where it was not looked at."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    replies: int
    own: float
    servers: float
    mine: float
    machine: float


def seconds_of(pid: int) -> float:
    """Processor time of a process and all below it."""
    total, waiting = 0.0, [pid]
    while waiting:
        each = waiting.pop()
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
            total += sum(map(int, fields[11:15])) / TICK
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def busy_seconds() -> float:
    """Processor time of the whole machine since it was started, idle time excepted."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK


async def run(place: Place, contender: Contender, work: Work) -> Run:
    """Start it on queues that are filled, watch until every request is answered, stop it, judge the replies."""
    task = Task(place.broker.url, place.redis.url, tuple(place.topology.shard_queues), work.wait)
    pace = Pace()
    with tempfile.TemporaryFile() as log:
        if contender.is_held:
            await place.hold()
        process = await asyncio.create_subprocess_exec(
            contender.python,
            *contender.command,
            cwd=ROOT,
            env={**os.environ, **task.environ(), **dict(contender.environ)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            first, last = await _watched(place, process, work, pace, is_held=contender.is_held)
        except (TimeoutError, RuntimeError) as error:
            log.seek(0)
            raise RuntimeError(f"{contender.name}: {error}\n{log.read().decode(errors='replace')[-3000:]}") from error
        finally:
            await _stop(process)
    found = faults(work, await place.take_replies())
    count, seconds = last.replies - first.replies, last.at - first.at
    own, servers = last.own - first.own, last.servers - first.servers
    others = (last.machine - first.machine) - own - servers - (last.mine - first.mine)
    return Run(
        contender.name,
        count / seconds,
        own / count * 1e6,
        servers / count * 1e6,
        max(0.0, others / seconds / (os.cpu_count() or 1)),
        found,
        pace.microseconds,
    )


async def _watched(
    place: Place, process: asyncio.subprocess.Process, work: Work, pace: Pace, *, is_held: bool
) -> tuple[_Sample, _Sample]:
    first: _Sample | None = None
    async with asyncio.timeout(LIMIT_SECONDS):
        if is_held:
            # From the first request on: who reads far ahead does a part of its work before its first reply.
            await _until_quiet(process)
            first = _sample(place, process.pid, await place.answered())
            await place.release()
        while True:
            replies = await place.answered()
            if first is None and replies >= WARM * work.requests:
                first = _sample(place, process.pid, replies)
            if first is not None and replies >= work.requests:
                return first, _sample(place, process.pid, replies)
            if process.returncode is not None:
                raise RuntimeError(f"ended with {process.returncode} after {replies} replies")
            pause = SHORTEST_PAUSE
            if first is not None:
                pace.look()
                pause = pause_after(time.monotonic() - first.at, replies - first.replies, work.requests - replies)
            await asyncio.sleep(pause)


def pause_after(seconds: float, done: int, left: int) -> float:
    """Seconds until the next look: the fewer are left at this rate, the sooner, so that the end is seen at once."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, seconds * left / done / 4)) if done else SHORTEST_PAUSE


async def _until_quiet(process: asyncio.subprocess.Process) -> None:
    """Wait until it has imported, connected and asked for work: it uses no processor time any more."""
    quiet, used = 0, seconds_of(process.pid)
    while process.returncode is None and quiet < 2:
        await asyncio.sleep(QUIET_SECONDS)
        before, used = used, seconds_of(process.pid)
        quiet = quiet + 1 if used - before < QUIET * QUIET_SECONDS else 0


def _sample(place: Place, pid: int, replies: int) -> _Sample:
    # At the beginning and the end alone: all of /proc at every look took a sixth of a processor from who is measured.
    servers = seconds_of(place.broker.pid) + seconds_of(place.redis.pid)
    return _Sample(time.monotonic(), replies, seconds_of(pid), servers, time.process_time(), busy_seconds())


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
