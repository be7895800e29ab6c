"""The image's entry point as process 1 of its own process namespace, as a container engine runs it without an init.

The kernel gives process 1 no default signal handlers: a TERM that nobody handles does nothing. And nobody collects a
child that it does not collect. Told to stop under load, it drains, ends with 0, and nothing is lost.
"""

import asyncio
import json
import os
import re
import signal
import sys
import tomllib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import ExitCode
from interfaces.reply_bodies import Reply
from tests.integration.conftest import StartWorker
from tests.integration.faults import until
from tests.services.processes import ROOT, WorkerProcess

BOT = "tests.integration.test_pid_1:bot"
CONTEXTS = [f"context {number}" for number in range(40)]
TURN_SECONDS = 0.05

pytestmark = pytest.mark.timeout(180)


async def bot(ctx: Context) -> str:
    """Takes long enough for a signal to find turns running."""
    await asyncio.sleep(TURN_SECONDS)
    return f"noted {ctx.last_request.text}"


def children(pid: int) -> dict[int, str]:
    """The state of each child of a process, `Z` for one that has ended and was not collected."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = {}
    for child in map(int, listed):
        try:
            states[child] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # collected meanwhile
            continue
    return states


class Namespaced:
    """The entry point in a process namespace, seen from outside of it."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """What the namespace's process 1 is called out here."""
        [pid] = children(self.process.pid)
        return pid

    def called_inside(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        [line] = re.findall(r"^NSpid:\s+(.*)$", status, re.MULTILINE)
        return int(line.split()[-1])

    @property
    def workers(self) -> dict[int, str]:
        return children(self.pid)


Start = Callable[[int], Awaitable[Namespaced]]


@pytest.fixture
async def start(tmp_path: Path, processes: list[WorkerProcess], worker_settings: dict[str, str]) -> Start:
    """Starts the entry point with so many processes."""
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    name, *arguments = json.loads(entry)  # a shell in between would be process 1, and pass no signal on
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[name].partition(":")
    script = tmp_path / name
    script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    # Whoever is not root may have a process namespace inside a user namespace.
    mapped = ["--user", "--map-root-user"] if os.geteuid() else []
    command = ["unshare", *mapped, "--fork", "--pid", "--mount-proc", "--kill-child", str(script), *arguments]

    async def start(count: int) -> Namespaced:
        process = await asyncio.create_subprocess_exec(
            *command,
            *("run", BOT, "--processes", str(count)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **worker_settings},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(WorkerProcess(process))
        return Namespaced(processes[-1])

    return start


def ready(process: WorkerProcess) -> int:
    """How many workers were ever ready. The last lines of one that died, which hold the word again, are indented."""
    return len(re.findall(r"^\S.*\bready: ", process.log, re.MULTILINE))


class Load:
    """Messages to every context, faster than they are answered, until it is over; and the replies."""

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self.sent = dict.fromkeys(CONTEXTS, 0)
        self.replies: defaultdict[str, set[tuple[int, str | None]]] = defaultdict(set)
        """By context: the turns and what was said. A reply may come twice, with one body; a turn never."""
        self.is_over = False

    @property
    def unanswered(self) -> int:
        return sum(self.sent.values()) - self.answered

    @property
    def answered(self) -> int:
        return sum(map(len, self.replies.values()))

    async def send(self) -> None:
        await asyncio.gather(*map(self._send, CONTEXTS))

    async def _send(self, ctx_id: str) -> None:
        while not self.is_over:
            await self._client.send(f"{self.sent[ctx_id] + 1}", ctx_id)
            self.sent[ctx_id] += 1
            await asyncio.sleep(TURN_SECONDS / 2)

    async def collect(self, replies: AsyncIterator[Reply]) -> None:
        async for reply in replies:
            self.replies[str(reply.ctx_id)].add((reply.turn, reply.message.text if reply.message else None))


@pytest.mark.parametrize("count", [1, 3])
async def test_process_1_told_to_stop_under_load_drains_and_ends_with_0_and_nothing_is_lost(
    start: Start, start_worker: StartWorker, client: BrokerClient, count: int
) -> None:
    first, load = await start(count), Load(client)
    await until(lambda: ready(first.process) == count, f"{count} workers are ready")
    assert first.called_inside() == 1
    async with client.replies() as replies:
        collecting = asyncio.create_task(load.collect(replies))
        sending = asyncio.create_task(load.send())
        await until(lambda: load.answered >= 100, "a hundred are answered")
        if count > 1:
            await _kill_one_worker(first, count)
        assert load.unanswered > 0
        os.kill(first.pid, signal.SIGTERM)
        async with asyncio.timeout(40):
            assert await first.process.ended() == ExitCode.OK
        assert len(re.findall(r"^\S.*SIGTERM: stopping, running turns have", first.process.log, re.MULTILINE)) == count
        load.is_over = True
        await sending
        assert load.unanswered > 0

        await (await start_worker(BOT)).ready()
        await until(lambda: load.unanswered <= 0, "everything is answered")
        collecting.cancel()
    for ctx_id, sent in load.sent.items():
        assert sorted(load.replies[ctx_id]) == [(turn, f"noted {turn}") for turn in range(1, sent + 1)]


async def _kill_one_worker(first: Namespaced, count: int) -> None:
    """It is collected, and another one takes its place: no zombie is left among the children of process 1."""
    before = first.workers
    assert len(before) == count
    os.kill(min(before), signal.SIGKILL)
    await until(lambda: ready(first.process) == count + 1, "another one is ready")
    after = first.workers
    assert "Z" not in after.values()
    assert (len(after), len(after.keys() - before.keys())) == (count, 1)
    assert "was killed by SIGKILL" in first.process.log


async def test_process_1_told_to_stop_before_it_is_ready_ends_with_0(start: Start) -> None:
    first = await start(2)
    await until(lambda: "supervisor: worker 2: process" in first.process.log, "the workers are started")
    os.kill(first.pid, signal.SIGTERM)
    async with asyncio.timeout(40):
        assert await first.process.ended() == ExitCode.OK
