"""The command against real servers: a worker process, and every other command beside it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interfaces.errors import ExitCode

BOT = """
import asyncio, time

async def handler(ctx):
    text = ctx.last_request.text
    if text == "fail":
        raise ValueError("boom")
    if text == "slow":
        await asyncio.sleep(600)
    return f"{ctx.current_turn_id}: {text}"

def stuck(ctx):
    time.sleep(600)

async def blocking_elsewhere(ctx):
    await asyncio.to_thread(time.sleep, 600)

async def stubborn(ctx):
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""

ROOT = Path(__file__).parents[2]
Process = subprocess.Popen[str]


class Command:
    """The command, in a directory with a bot, on the servers of the run."""

    def __init__(self, project: Path, namespace: str, amqp_url: str, redis_url: str) -> None:
        self.namespace = namespace
        self.project = project
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SWITCHBOARD_AMQP_URL": amqp_url,
            "SWITCHBOARD_REDIS_URL": redis_url,
            "SWITCHBOARD_NAMESPACE": self.namespace,
            "SWITCHBOARD_SHARDS": "2",
        }

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._line(*arguments),
            cwd=self.project,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def start(self, *arguments: str) -> Process:
        """A worker that is ready."""
        process = subprocess.Popen(
            self._line("run", *arguments), cwd=self.project, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        read_until(process, "ready: ")
        return process

    def _line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from worker.cli import main; main()", *arguments]


def read_until(process: Process, text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the worker ended without {text!r}")


@pytest.fixture
def command(tmp_path: Path, namespace: str, amqp_url: str, redis_url: str) -> Command:
    (tmp_path / "bot.py").write_text(BOT)
    return Command(tmp_path, namespace, amqp_url, redis_url)


@pytest.fixture
def start(command: Command) -> Iterator[Callable[..., Process]]:
    """Starts workers, and kills at the end what is left of them."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(command.start(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_dialog_by_the_command_is_answered_shown_and_deleted(command: Command, start: Callable[..., Process]) -> None:
    start("bot:handler")
    assert command("send", "ada", "hello").stdout == "1: hello\n"
    assert command("send", "ada", "-", stdin="piped\n").stdout == "2: piped\n"
    assert json.loads(command("send", "ada", "again", "--json").stdout)["message"]["text"] == "3: again"
    assert command("chat", "--ctx", "ada", stdin="more\n").stdout.count("bot> 4: more") == 1

    shown = command("context", "show", "ada", "--turns", "2").stdout
    assert "version    4\n" in shown
    assert "turn 3\nuser  again\nbot   3: again\n" in shown
    assert "turn 2" not in shown
    context = json.loads(command("context", "show", "ada", "--json").stdout)
    assert [turn["turn"] for turn in context["turns"]] == [1, 2, 3, 4]
    assert context["created_at"].endswith("Z")

    assert command("context", "delete", "ada").returncode == ExitCode.USAGE
    assert command("context", "delete", "ada", "--yes").returncode == ExitCode.OK
    gone = command("context", "show", "ada")
    assert (gone.returncode, gone.stdout) == (ExitCode.FAILED, "")
    assert "there is no context 'ada'" in gone.stderr


def test_a_request_sent_twice_under_one_id_is_one_turn(command: Command, start: Callable[..., Process]) -> None:
    start("bot:handler")
    replies = [command("send", "ada", "hello", "--id", "order-1", "--json").stdout for _ in range(2)]
    assert replies[0] == replies[1]
    assert command("send", "ada", "hello", "--id", "order-2").stdout == "2: hello\n"


def test_an_error_reply_ends_send_with_1_and_leaves_a_dead_letter(
    command: Command, start: Callable[..., Process]
) -> None:
    start("bot:handler", "--attempts", "1")
    failed = command("send", "ada", "fail")
    assert (failed.returncode, failed.stdout) == (ExitCode.FAILED, "")
    assert failed.stderr == "Error: handler-failed: the bot failed\n"
    assert json.loads(command("topology", "show", "--json").stdout)["dead_letters"]["ready"] == 1
    checks = {check["check"]: check["status"] for check in json.loads(command("doctor", "--json").stdout)["checks"]}
    assert (checks["dead letters"], checks["consumers"], checks["topology"]) == ("warn", "ok", "ok")


def test_without_a_worker_send_waits_and_ends_with_8(command: Command) -> None:
    assert command("topology", "apply").returncode == 0
    late = command("send", "ada", "hello", "--timeout", "0.5")
    assert late.returncode == ExitCode.NO_REPLY
    sent = command("send", "ada", "hello", "--no-wait", "--id", "order-1")
    assert (sent.returncode, sent.stdout) == (0, "order-1\n")
    assert sum(shard["ready"] for shard in json.loads(command("topology", "show", "--json").stdout)["shards"]) == 2


def test_a_topology_is_shown_as_missing_then_applied_then_shown(command: Command) -> None:
    assert "nothing is declared" in command("topology", "show").stdout
    assert command("doctor").stdout.count("fail  ") == 0
    assert "2 request queues" in command("topology", "apply").stdout
    assert command("topology", "apply").returncode == 0
    shown = command("topology", "show").stdout
    assert f"{command.namespace}.requests.g1.001      0          0  no consumer\n" in shown


def test_doctor_finds_a_topology_that_differs_and_changes_nothing(command: Command) -> None:
    command("topology", "apply")
    found = command("doctor", "--max-length", "9")
    assert found.returncode == ExitCode.BROKER
    assert "fail  topology: " in found.stdout
    assert "x-max-length" in found.stdout
    assert "ok    topology: " in command("doctor").stdout
    assert command("topology", "apply", "--max-length", "9").returncode == ExitCode.BROKER


@pytest.mark.parametrize("shards", ["1", "3"])
def test_another_number_of_shards_is_not_applied_but_told_how_to_change(command: Command, shards: str) -> None:
    command("topology", "apply")
    refused = command("topology", "apply", "--shards", shards)
    assert refused.returncode == ExitCode.BROKER
    assert f"switchboard topology reshard --shards {shards}" in refused.stderr
    found = command("doctor", "--shards", shards)
    assert found.returncode == ExitCode.OK
    used = f"namespace {command.namespace!r} has 2 shards"
    assert f"warn  shards: SWITCHBOARD_SHARDS is {shards}, and {used}" in found.stdout


def test_another_prefetch_is_not_applied_but_told_how_to_change(command: Command) -> None:
    command("topology", "apply", "--prefetch", "16")
    current = json.loads(command("topology", "show", "--json").stdout)["plan"]["current"]
    assert current["prefetch"] == 16
    refused = command("topology", "apply", "--prefetch", "8")
    assert refused.returncode == ExitCode.BROKER
    assert "switchboard topology reshard --shards 2 --prefetch 8" in refused.stderr


def test_a_change_of_shards_is_shown_and_told_by_every_command(command: Command, start: Callable[..., Process]) -> None:
    start("bot:handler")
    assert command("send", "ada", "hello").stdout == "1: hello\n"
    changed = command("topology", "reshard", "--shards", "3")
    assert changed.returncode == ExitCode.OK
    assert changed.stderr == "1024 slots moved\n2 old queues passed\n2 old queues deleted\n"
    assert "3 shards, generation 2" in changed.stdout
    assert command("send", "ada", "again").stdout == "2: again\n"
    assert f"{command.namespace}.requests.g2.002" in command("topology", "show").stdout
    current = json.loads(command("topology", "show", "--json").stdout)["plan"]["current"]
    assert (current["number"], current["shards"]) == (2, 3)
    used = f"namespace {command.namespace!r} has 3 shards"
    assert f"warn  shards: SWITCHBOARD_SHARDS is 2, and {used}" in command("doctor").stdout


@pytest.mark.parametrize("bot", ["handler", "stuck", "blocking_elsewhere"])
def test_turns_that_outlive_the_drain_timeout_are_given_up_with_7(
    command: Command, start: Callable[..., Process], bot: str
) -> None:
    worker = start(f"bot:{bot}", "--drain-timeout", "0.2", "--log-level", "debug")
    assert command("send", "ada", "slow", "--timeout", "1").returncode == ExitCode.NO_REPLY
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=8) == ExitCode.UNFINISHED
    again = start("bot:handler")
    assert command("send", "bob", "hello").stdout == "1: hello\n"
    again.kill()


def test_a_second_signal_ends_a_worker_at_once(command: Command, start: Callable[..., Process]) -> None:
    worker = start("bot:handler", "--drain-timeout", "600")
    assert command("send", "ada", "slow", "--timeout", "1").returncode == ExitCode.NO_REPLY
    worker.send_signal(signal.SIGTERM)
    read_until(worker, "SIGTERM: stopping")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=8) == ExitCode.UNFINISHED


def test_a_bot_that_ignores_its_cancellation_is_ended_by_a_third_signal(
    command: Command, start: Callable[..., Process]
) -> None:
    worker = start("bot:stubborn", "--drain-timeout", "600")
    assert command("send", "ada", "hello", "--timeout", "1").returncode == ExitCode.NO_REPLY
    for text in ("SIGTERM: stopping", "SIGTERM again"):
        worker.send_signal(signal.SIGTERM)
        read_until(worker, text)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=8) == ExitCode.UNFINISHED
