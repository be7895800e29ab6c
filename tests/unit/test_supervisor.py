"""The supervisor over small processes: restarts, ends, signals, and what is told of them. No bot, no server."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from interfaces.errors import ExitCode
from worker import child, supervisor
from worker.cli import switchboard
from worker.settings import Settings, load_settings
from worker.supervisor import LONGEST_PAUSE_SECONDS, NO_RESTART, STEADY_SECONDS, Restarts, Supervisor, gravest

ROOT = Path(__file__).parents[2]

OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("begun", file=sys.stderr, flush=True)
while True: time.sleep(60)
"""

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(2, b"told\\n"))
os.write(2, b"begun\\n")
while True: time.sleep(60)
"""


def supervised(code: str, *arguments: object, processes: int = 1, polite: float = 60, abrupt: float = 60) -> Supervisor:
    command = [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]
    return Supervisor(command, os.environ, processes=processes, polite_seconds=polite, abrupt_seconds=abrupt)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for is a log or a process, which set no event
            await asyncio.sleep(0.005)


def records(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_pauses_before_restarts_grow_up_to_a_bound_and_begin_anew_after_a_steady_life() -> None:
    restarts = Restarts()
    pauses = [restarts.pause(0.1) for _ in range(40)]
    growing = [pause for pause in pauses if pause < LONGEST_PAUSE_SECONDS / 2]
    assert len(growing) >= 5
    assert growing == sorted(growing)
    assert all(LONGEST_PAUSE_SECONDS / 2 <= pause <= LONGEST_PAUSE_SECONDS for pause in pauses[len(growing) :])
    assert restarts.pause(STEADY_SECONDS) <= supervisor.FIRST_PAUSE_SECONDS


def test_dying_after_every_longest_pause_is_not_a_steady_life() -> None:
    assert STEADY_SECONDS > LONGEST_PAUSE_SECONDS


async def test_a_worker_that_crashes_at_every_start_is_started_later_each_time() -> None:
    pauses: list[float] = []
    seconds = [0.0]

    async def sleep(pause: float) -> None:
        pauses.append(pause)
        seconds[0] += pause
        if len(pauses) == 6:
            looping.on_signal(signal.SIGTERM)

    looping = Supervisor(
        [sys.executable, "-I", "-S", "-c", "raise SystemExit(1)"],
        {},
        processes=1,
        polite_seconds=60,
        abrupt_seconds=60,
        clock=lambda: seconds[0],
        sleep=sleep,
    )
    assert await looping.run() == ExitCode.OK
    assert pauses == sorted(pauses)
    assert pauses[-1] > 8 * pauses[0]


@pytest.mark.parametrize("code", sorted(NO_RESTART))
async def test_an_exit_code_that_forbids_restarts_stops_all_and_is_that_of_the_supervisor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: ExitCode
) -> None:
    first_fails = f"""
import os, sys
try:
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
    sys.exit({int(code)})
except FileExistsError:
    pass
{OBEDIENT}
"""
    assert await supervised(first_fails, tmp_path / "first", processes=3).run() == code
    assert len(records(caplog, f"ended with exit code {int(code)} ({code.name}); a restart would not help")) == 1
    assert len(records(caplog, ": process ")) == 4
    assert not records(caplog, "started again")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], ExitCode.OK),
        ([0, 0], ExitCode.OK),
        ([0, -signal.SIGTERM], ExitCode.OK),
        ([3, 7, 0], ExitCode.UNFINISHED),
        ([0, -signal.SIGKILL, 1], ExitCode.UNFINISHED),
        ([1, 6, 0], ExitCode.CONSUMER_LOST),
        ([6, 5, 4], ExitCode.BROKER),
        ([0, 42], ExitCode.FAILED),
    ],
)
def test_the_gravest_end_of_the_workers_is_that_of_the_supervisor(codes: list[int], expected: ExitCode) -> None:
    assert gravest(codes) == expected


async def test_a_crash_is_told_in_one_record_with_its_exit_code_and_last_lines(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys\nfor n in range(50): print('line', n, file=sys.stderr)\nsys.exit(6)"
    crashing = supervised(code)
    running = asyncio.create_task(crashing.run())
    await until(lambda: bool(records(caplog, "is started again in")))
    crashing.on_signal(signal.SIGINT)
    await running
    record = records(caplog, "is started again in")[0]
    assert "ended with exit code 6 (CONSUMER_LOST) after" in record
    assert record.splitlines()[1:] == [f"    line {n}" for n in range(30, 50)]
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("[1] line")][:50] == [
        f"[1] line {n}" for n in range(50)
    ]


async def test_a_line_without_an_end_is_passed_on_in_pieces_and_kept_short(capsys: pytest.CaptureFixture[str]) -> None:
    size = 10 * child.LINE_BYTES
    code = f"import os, sys\nsys.stderr.write('x' * {size})\nsys.stderr.flush()\nos.kill(os.getpid(), 9)"
    read_end, write_end = os.pipe()
    process = await child.Child.start(7, [sys.executable, "-I", "-S", "-c", code], {}, read_end)
    end = await process.ended()
    os.close(read_end)
    os.close(write_end)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert "".join(line.removeprefix("[7] ") for line in lines) == "x" * size
    assert end.code == -signal.SIGKILL
    assert end.how == f"process {process.pid} was killed by SIGKILL"
    assert len(end.last_lines) < child.LAST_LINES * (child.LAST_LINE_CHARACTERS + 10)


async def test_a_helper_process_left_behind_with_standard_error_does_not_hold_up_the_end() -> None:
    code = """
import subprocess, sys
helper = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
print(helper.pid, file=sys.stderr)
"""
    read_end, write_end = os.pipe()
    process = await child.Child.start(1, [sys.executable, "-I", "-S", "-c", code], {}, read_end)
    try:
        async with asyncio.timeout(30):
            end = await process.ended()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert end.code == 0
    os.kill(int(end.last_lines.split()[-1]), signal.SIGKILL)


async def test_a_third_signal_kills_and_the_exit_code_says_unfinished(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = ""

    def told(count: int) -> bool:
        nonlocal seen
        seen += capfd.readouterr().err
        return seen.count("told") >= count

    stubborn = supervised(STUBBORN, processes=2)
    running = asyncio.create_task(stubborn.run())
    await until(lambda: told(0) and seen.count("begun") == 2)
    stubborn.on_signal(signal.SIGINT)
    await until(lambda: told(2))
    stubborn.on_signal(signal.SIGINT)
    await until(lambda: told(4))
    assert not running.done()
    stubborn.on_signal(signal.SIGINT)
    assert await running == ExitCode.UNFINISHED
    assert len(records(caplog, "was killed by SIGKILL while stopping")) == 2


@pytest.mark.parametrize(("signals", "polite", "abrupt"), [(1, 0.1, 60), (2, 60, 0.1)])
async def test_workers_that_outlive_their_own_bound_and_the_margin_are_killed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signals: int, polite: float, abrupt: float
) -> None:
    monkeypatch.setattr(supervisor, "KILL_MARGIN_SECONDS", 0.1)
    stubborn = supervised(STUBBORN, polite=polite, abrupt=abrupt)
    running = asyncio.create_task(stubborn.run())
    await until(lambda: "begun" in capfd.readouterr().err)
    for _ in range(signals):
        stubborn.on_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        assert await running == ExitCode.UNFINISHED


async def test_a_stop_while_workers_are_being_started_reaches_them_too() -> None:
    obedient = supervised(OBEDIENT, processes=3)
    running = asyncio.create_task(obedient.run())
    await asyncio.sleep(0)  # the supervisor begins,
    await asyncio.sleep(0)  # and each worker is a process that nobody knows yet
    obedient.on_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        assert await running == ExitCode.OK


async def test_a_stop_ends_the_pause_before_a_restart(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 1000.0)
    pausing = supervised("raise SystemExit(1)")
    running = asyncio.create_task(pausing.run())
    await until(lambda: bool(records(caplog, "is started again in")))
    pausing.on_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        assert await running == ExitCode.OK


async def test_a_worker_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[float] = []

    async def sleep(pause: float) -> None:
        tries.append(pause)
        if len(tries) == 3:
            absent.on_signal(signal.SIGTERM)

    absent = Supervisor(["/nonexistent"], {}, processes=1, polite_seconds=1, abrupt_seconds=1, sleep=sleep)
    assert await absent.run() == ExitCode.OK
    assert len(records(caplog, "could not be started ([Errno 2]")) == 3


def test_a_worker_that_ignores_the_loss_of_its_supervisor_is_ended_by_force() -> None:
    code = """
import os, signal, time
from worker.supervisor import end_with_supervisor
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\\n"))
end_with_supervisor(0.1)
while True: time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input="", stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (ExitCode.UNFINISHED, "told\n")


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_of_processes_that_makes_no_sense_is_wrong_usage(number: str) -> None:
    result = CliRunner().invoke(switchboard, ["run", "bot:handler", "--processes", number])
    assert result.exit_code == ExitCode.USAGE
    assert "SWITCHBOARD_PROCESSES" in result.stderr


def test_settings_reach_another_process_by_the_environment_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_MAX_TURNS", "12")
    values = {name: field.default for name, field in Settings.model_fields.items() if field.default is not None}
    settings = load_settings(**values | {"redis_url": "redis://:hunter2@host/0", "retry_wait": 1e-07})
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert load_settings().redis_url == SecretStr("redis://:hunter2@host/0")
