"""`switchboard run` and `chat` as processes of their own, with embedded servers."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interfaces.errors import ExitCode

BOT = """
import asyncio
from interfaces import Context, Image, Message

async def handler(ctx: Context) -> Message | str | None:
    match ctx.last_request.text:
        case "fail":
            raise ValueError("boom")
        case "slow":
            await asyncio.sleep(60)
        case "picture":
            return Message("look", attachments=[Image(source="https://example.org/a.png")])
        case text:
            return f"{ctx.current_turn_id}: \\x1b[31m{text}"
"""

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(BOT)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from worker.cli import main; main()", *arguments]


def chat(project: Path, lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("chat", *arguments),
        cwd=project,
        env=environment(),
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def running(project: Path) -> Iterator["subprocess.Popen[str]"]:
    """An embedded worker that is ready."""
    process = subprocess.Popen(
        command("run", "bot:handler"), cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "ready: namespace 'switchboard'" in line:
                break
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_ends_with_0(running: "subprocess.Popen[str]", number: signal.Signals) -> None:
    running.send_signal(number)
    _, log = running.communicate(timeout=30)
    assert running.returncode == ExitCode.OK
    assert f"INFO    cli.ending: {number.name}: stopping" in log


def test_a_second_signal_to_an_idle_worker_ends_it_with_0_too(running: "subprocess.Popen[str]") -> None:
    running.send_signal(signal.SIGTERM)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == ExitCode.OK


def test_an_embedded_worker_says_that_nobody_can_reach_it(project: Path) -> None:
    process = subprocess.Popen(
        command("run", "bot:handler"), cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.kill()
    process.communicate()
    assert "WARNING cli.run: SWITCHBOARD_AMQP_URL is memory://" in first


def test_a_chat_with_an_embedded_bot_answers_each_line_in_one_dialog(project: Path) -> None:
    done = chat(project, "hello\n\nagain\npicture", "--app", "bot:handler", "--ctx", "ada")
    assert done.returncode == 0
    assert "Talking to bot:handler, dialog ada." in done.stdout
    assert "bot> 1: hello\n" in done.stdout
    assert "bot> 2: again\n" in done.stdout
    assert "bot> look\n[image: https://example.org/a.png]\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_chat_goes_on_after_a_failed_and_a_late_answer(project: Path) -> None:
    done = chat(project, "fail\nhello\n", "--app", "bot:handler", "--attempts", "1")
    assert "bot failed> handler-failed: the bot failed" in done.stderr
    assert "bot> 1: hello" in done.stdout
    assert done.returncode == 0
    late = chat(project, "slow\n", "--app", "bot:handler", "--timeout", "0.2")
    assert "no reply> no reply to request" in late.stderr


def test_a_chat_whose_bot_cannot_be_loaded_ends_with_3(project: Path) -> None:
    done = chat(project, "hello\n", "--app", "nothing:here")
    assert done.returncode == ExitCode.APP
    assert done.stderr.startswith("Error: there is no module 'nothing'")


@pytest.mark.parametrize(("variable", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_appear_on_a_terminal_unless_no_color_is_set(
    project: Path, variable: dict[str, str], is_coloured: bool
) -> None:
    controller, terminal = pty.openpty()
    env = {**environment(), "TERM": "xterm-256color", **variable}
    process = subprocess.Popen(
        command("doctor"), cwd=project, env=env, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    process.wait(timeout=60)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "Redis" in shown
    assert ("\x1b[32m" in shown) is is_coloured


def test_ctrl_c_at_the_prompt_ends_a_chat_with_130_and_no_traceback(project: Path) -> None:
    process = subprocess.Popen(
        command("chat", "--app", "bot:handler"),
        cwd=project,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    for line in process.stdout:
        if "bot> 1: hello" in line:
            break
    process.send_signal(signal.SIGINT)
    # Not `communicate` at once: it closes the input, and the end of the input ends a chat too, with 0.
    assert process.wait(timeout=30) == 130
    _, errors = process.communicate()
    assert "Traceback" not in errors


def test_a_bot_in_a_folder_named_worker_is_run_by_the_command(project: Path) -> None:
    (project / "worker").mkdir()
    (project / "worker" / "bot.py").write_text((project / "bot.py").read_text())
    done = subprocess.run(
        command("chat", "--app", "worker.bot:handler"),
        cwd=project,
        env=environment(PYTHONSAFEPATH="1"),
        input="hello\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "bot> 1: hello" in done.stdout
