"""`switchboard run --processes N` with real processes: crashes, signals, ends, and what it leaves behind: nothing.

Where nothing has to come in, the servers are embedded ones (a pair in each worker); the last tests are on real ones.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import ExitCode
from interfaces.reply_bodies import Reply
from interfaces.topology import Topology
from tests.services.processes import ROOT, WorkerProcess

BOT = """
import asyncio, sys

print("one\\ntwo\\nthree", file=sys.stderr)

async def handler(ctx):
    text = ctx.last_request.text
    print("turn", text, file=sys.stderr, flush=True)
    await asyncio.sleep({"slow": 2, "endless": 600}.get(text, 0.02))
    return f"{ctx.current_turn_id}: {text}"
"""

SECONDS = 60

Start = Callable[..., Awaitable[WorkerProcess]]


def pids(process: WorkerProcess) -> dict[int, int]:
    """The newest process of each worker, as the supervisor has logged them."""
    started = re.findall(r" supervisor: worker (\d+): process (\d+)$", process.log, re.MULTILINE)
    return {int(number): int(pid) for number, pid in started}


def ready(process: WorkerProcess) -> list[int]:
    """The number of a worker for each time that it, or one it replaces, was ready."""
    return [int(number) for number in re.findall(r"^\[(\d+)\] .*\bready: ", process.log, re.MULTILINE)]


def said(reply: Reply) -> str | None:
    return reply.message.text if reply.message else None


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # it has ended; where it is an orphan, collecting it is the system's business


def seen_by_system(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


async def until(process: WorkerProcess, condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for is a log or a process, which set no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"did not come to pass within {SECONDS} s:\n{process.log}") from None


async def end_of(process: WorkerProcess) -> int:
    async with asyncio.timeout(SECONDS):
        return await process.ended()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts `switchboard run ARGUMENTS` beside the bot, as the leader of a process group of its own."""
    (tmp_path / "bot.py").write_text(BOT)
    started: list[WorkerProcess] = []

    async def start(
        *arguments: str, settings: dict[str, str] | None = None, python: tuple[str, ...] = ("-m", "worker.cli")
    ) -> WorkerProcess:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *python, "run", *arguments),
            cwd=tmp_path,
            env={**environ, "PYTHONPATH": str(ROOT), **(settings or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        started.append(WorkerProcess(process))
        return started[-1]

    yield start
    for process in started:
        for pid in pids(process).values():
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
        await process.kill()


@pytest.fixture
async def three(start: Start) -> WorkerProcess:
    """A supervisor of three workers that are ready."""
    process = await start("bot:handler", "--processes", "3")
    await until(process, lambda: sorted(ready(process)) == [1, 2, 3])
    return process


async def test_a_killed_worker_is_started_again_reported_with_its_last_lines_and_no_other_is_touched(
    three: WorkerProcess,
) -> None:
    before = pids(three)
    os.kill(before[2], signal.SIGKILL)
    await until(three, lambda: sorted(ready(three)) == [1, 2, 2, 3])
    after = pids(three)
    assert (after[1], after[3]) == (before[1], before[3])
    assert not any(is_gone(pid) for pid in after.values())
    assert after[2] != before[2]
    report = re.search(
        rf"ERROR   supervisor: worker 2: process {before[2]} was killed by SIGKILL after [\d.]+ s; "
        r"it is started again in 0\.\d s\. Its last lines:\n((?:    .*\n)+)",
        three.log,
    )
    assert report is not None, three.log
    assert "    one\n    two\n    three\n" in report[1]
    assert "ready: " in report[1].splitlines()[-1]
    assert await three.stop() == ExitCode.OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_all_workers_drain_and_the_exit_code_is_0(
    three: WorkerProcess, number: signal.Signals
) -> None:
    workers = pids(three)
    os.killpg(three.pid, number)  # as a terminal does with Ctrl-C: each process of the group gets it
    assert await end_of(three) == ExitCode.OK
    assert all(is_gone(pid) for pid in workers.values())
    assert three.log.count("cli.ending: SIGTERM: stopping") == 3
    assert "again" not in three.log


async def test_a_third_signal_kills_workers_that_do_not_react(start: Start) -> None:
    process = await start("bot:handler", "--processes", "2")
    await until(process, lambda: sorted(ready(process)) == [1, 2])
    for pid in pids(process).values():
        os.kill(pid, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGTERM)
    await until(process, lambda: "SIGTERM: stopping 2 workers" in process.log)
    os.kill(process.pid, signal.SIGTERM)
    await until(process, lambda: "SIGTERM again" in process.log)
    os.kill(process.pid, signal.SIGTERM)
    assert await end_of(process) == ExitCode.UNFINISHED
    assert process.log.count("was killed by SIGKILL while stopping") == 2


async def test_an_app_that_cannot_be_loaded_ends_all_with_3_and_no_restart(start: Start) -> None:
    process = await start("nothing:here", "--processes", "3")
    assert await end_of(process) == ExitCode.APP
    assert re.search(r"^\[\d\] Error: there is no module 'nothing'", process.log, re.MULTILINE)
    assert process.log.count("ended with exit code 3 (APP); a restart would not help, all workers stop") == 1
    assert "started again" not in process.log
    assert process.log.count(": process ") == 3 + 1


async def test_workers_end_when_their_supervisor_is_killed(three: WorkerProcess) -> None:
    workers = pids(three)
    assert not any(is_gone(pid) for pid in workers.values())
    os.kill(three.pid, signal.SIGKILL)
    assert await end_of(three) == -signal.SIGKILL
    await until(three, lambda: all(is_gone(pid) for pid in workers.values()))


async def test_workers_get_flags_by_the_environment_and_no_secret_by_their_command_line(start: Start) -> None:
    process = await start(
        *("bot:handler", "--log-level", "debug", "--prefetch", "9"),
        settings={
            "SWITCHBOARD_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
            "SWITCHBOARD_PROCESSES": "2",
            "SWITCHBOARD_PREFETCH": "7",
        },
    )
    await until(process, lambda: process.log.count("waiting for Redis") >= 2)
    for pid in pids(process).values():
        assert "hunter2" not in seen_by_system(pid, "cmdline")
        environment = seen_by_system(pid, "environ").split("\0")
        assert "SWITCHBOARD_REDIS_URL=redis://:hunter2@127.0.0.1:1/0" in environment
        assert "SWITCHBOARD_PREFETCH=9" in environment
    assert "hunter2" not in process.log
    assert await process.stop() == ExitCode.OK


async def test_one_process_is_no_supervisor(start: Start) -> None:
    process = await (await start("bot:handler", "--processes", "1")).ready()
    assert "supervisor" not in process.log
    assert "[1]" not in process.log
    assert await process.stop() == ExitCode.OK


async def test_a_bot_in_a_folder_named_worker_is_run_by_several_processes(start: Start, tmp_path: Path) -> None:
    for folder in ("worker", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "worker" / "__init__.py").touch()
    (tmp_path / "worker" / "bot.py").write_text(BOT)
    # As installed: a script in a folder of its own. `python -m` would look for `worker` in the bot's folder first.
    script = tmp_path / "bin" / "switchboard"
    script.write_text("from worker.cli import main; main()")
    process = await start("worker.bot:handler", "--processes", "2", python=(str(script),))
    await until(process, lambda: sorted(ready(process)) == [1, 2])
    assert await process.stop() == ExitCode.OK


@pytest.fixture
async def two(start: Start, topology: Topology, worker_settings: dict[str, str]) -> WorkerProcess:
    """A supervisor of two workers on real servers."""
    return await start("bot:handler", "--processes", "2", settings=worker_settings)


async def test_dialogs_go_on_in_order_when_a_worker_is_killed(two: WorkerProcess, client: BrokerClient) -> None:
    async def dialog(ctx_id: str) -> list[str | None]:
        replies = [await client.ask(f"{ctx_id} {n}", ctx_id) for n in range(8)]
        return [said(reply) for reply in replies]

    async def kill_whoever_works() -> None:
        await until(two, lambda: two.log.count("] turn ") >= 10)
        number = re.findall(r"^\[(\d)\] turn ", two.log, re.MULTILINE)[-1]
        os.kill(pids(two)[int(number)], signal.SIGKILL)

    names = [f"dialog-{n}" for n in range(8)]
    *dialogs, _ = await asyncio.gather(*(dialog(name) for name in names), kill_whoever_works())
    assert dialogs == [[f"{n + 1}: {name} {n}" for n in range(8)] for name in names]
    await until(two, lambda: "was killed by SIGKILL" in two.log)
    assert await two.stop() == ExitCode.OK


async def test_a_running_turn_is_finished_when_the_supervisor_is_told_to_stop(
    two: WorkerProcess, client: BrokerClient
) -> None:
    asking = asyncio.create_task(client.ask("slow", "ada"))
    await until(two, lambda: "] turn slow" in two.log)
    assert await two.stop() == ExitCode.OK
    assert said(await asking) == "1: slow"


async def test_a_running_turn_is_finished_when_the_supervisor_is_killed(
    two: WorkerProcess, client: BrokerClient
) -> None:
    asking = asyncio.create_task(client.ask("slow", "ada"))
    await until(two, lambda: "] turn slow" in two.log)
    await two.kill()
    assert said(await asking) == "1: slow"
    await until(two, lambda: all(is_gone(pid) for pid in pids(two).values()))


async def test_a_second_signal_gives_up_running_turns_and_the_exit_code_is_7(
    two: WorkerProcess, client: BrokerClient
) -> None:
    await client.send("endless", "ada")
    await until(two, lambda: "] turn endless" in two.log)
    os.kill(two.pid, signal.SIGTERM)
    # The same worker: a signal sent to it before it has seen the first would be one with the first.
    begun_and_told = r"^\[(\d)\] turn endless\n(.*\n)*\[\1\] .* SIGTERM: stopping"
    await until(two, lambda: re.search(begun_and_told, two.log, re.MULTILINE) is not None)
    os.kill(two.pid, signal.SIGTERM)
    assert await end_of(two) == ExitCode.UNFINISHED
    assert "stopped with 1 dialogs in a turn" in two.log
    assert "SIGKILL" not in two.log
