"""`switchboard edge` as a process: users' interfaces and Chatsky's console, what it ends with, and how fast."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import ExitCode
from tests.integration.conftest import StartWorker
from tests.integration.faults import Gate, running, until
from tests.integration.faults import worker_settings as gate_settings
from tests.services.processes import ROOT, WorkerProcess
from worker.running import Worker

FILES = "tests.bots.polling_edge:FileInterface"
INBOX, OUTBOX = "TEST_INBOX", "TEST_OUTBOX"

StartEdge = Callable[..., Awaitable[WorkerProcess]]


class Mail:
    """What users write to a `FileInterface`, and what it writes to them."""

    def __init__(self, directory: Path) -> None:
        self.inbox, self.outbox = directory / "inbox", directory / "outbox"
        self.inbox.touch()
        self.outbox.touch()

    def write(self, ctx_id: str, *texts: str) -> None:
        with self.inbox.open("a") as inbox:
            inbox.write("".join(f"{ctx_id}: {text}\n" for text in texts))

    @property
    def read(self) -> list[str]:
        return self.outbox.read_text().splitlines()


@pytest.fixture
def mail(tmp_path: Path) -> Mail:
    return Mail(tmp_path)


@pytest.fixture
def start_edge(processes: list[WorkerProcess], worker_settings: dict[str, str], mail: Mail) -> StartEdge:
    """Starts `switchboard edge INTERFACE ARGUMENTS`. Wait with `ready()`."""

    async def start_edge(interface: str, *arguments: str, **settings: object) -> WorkerProcess:
        own = {INBOX: str(mail.inbox), OUTBOX: str(mail.outbox)}
        further = {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        command = ["-m", "worker.cli", "edge", interface, *arguments]
        process = await WorkerProcess.start(command, worker_settings | own | further)
        processes.append(process)
        return process

    return start_edge


@pytest.fixture
async def bot(start_worker: StartWorker) -> WorkerProcess:
    return await (await start_worker("tests.bots.echoing:bot")).ready()


async def test_an_interface_that_raises_now_and_then_answers_everybody(
    mail: Mail, bot: WorkerProcess, start_edge: StartEdge
) -> None:
    edge = await (await start_edge(FILES)).ready()
    for number in range(10):
        for ctx_id in ("ada", "bob", "cyd"):
            mail.write(ctx_id, f"text {number}")
        await until(lambda number=number: len(mail.read) >= 3 * number, "the ones before are answered")  # type: ignore[misc]  # mypy cannot type a lambda's default
    mail.write("ada", "fail", "last")
    await until(lambda: "ada: 11: last" in mail.read, "the last one is answered")
    for ctx_id in ("ada", "bob", "cyd"):
        answers = [line for line in mail.read if line.startswith(ctx_id)][:10]
        assert answers == [f"{ctx_id}: {number + 1}: text {number}" for number in range(10)]
    assert "request: not today" in edge.log
    assert "respond: not today" in edge.log
    assert "handler-failed" in edge.log
    assert await edge.stop() == 0, edge.log


@pytest.mark.parametrize("attribute", ["an_instance", "a_function", "Inspecting"])
async def test_an_instance_a_function_and_a_class_are_taken_and_asyncios_own_task_stays(
    mail: Mail, bot: WorkerProcess, start_edge: StartEdge, attribute: str
) -> None:
    edge = await (await start_edge(f"tests.bots.polling_edge:{attribute}", "--name", "files")).ready()
    mail.write("ada", "hello")
    await until(lambda: "ada: 1: hello" in mail.read, "it is answered")
    assert "FileInterface" in edge.log or "Inspecting" in edge.log
    assert "'files'" in edge.log
    if attribute == "Inspecting":
        assert mail.read[0] == "_asyncio"


@pytest.fixture
async def gate(namespace: str, amqp_url: str) -> AsyncIterator[Gate]:
    """A bot in the test, whose turns last until it lets them go."""
    gate = Gate()
    async with running(Worker(gate, gate_settings(namespace), broker=RabbitMQBroker(amqp_url))):
        yield gate


async def test_a_message_that_was_taken_is_answered_before_it_ends_and_no_other_is_taken(
    mail: Mail, gate: Gate, start_edge: StartEdge
) -> None:
    edge = await (await start_edge(FILES)).ready()
    mail.write("ada", "slow")
    await until(lambda: gate.started == ["slow"], "the turn runs")
    ending = asyncio.create_task(edge.stop())
    await until(lambda: "SIGTERM: stopping" in edge.log, "it knows")
    mail.write("ada", "late")
    gate.open("slow", "late")
    assert await ending == ExitCode.OK, edge.log
    assert mail.read == ["ada: noted slow"]
    assert gate.started == ["slow"]


@pytest.mark.parametrize("again", [True, False], ids=["second signal", "drain timeout"])
async def test_what_is_not_answered_in_time_is_told_by_the_exit_code(
    mail: Mail, gate: Gate, start_edge: StartEdge, again: bool
) -> None:
    edge = await (await start_edge(FILES, drain_timeout=60 if again else 0.5)).ready()
    mail.write("ada", "slow")
    await until(lambda: gate.started == ["slow"], "the turn runs")
    os.kill(edge.pid, signal.SIGTERM)
    await until(lambda: "SIGTERM: stopping" in edge.log, "it knows")
    began = time.monotonic()
    if again:
        os.kill(edge.pid, signal.SIGTERM)
    assert await edge.ended() == ExitCode.UNFINISHED
    assert time.monotonic() - began < 5
    assert "1 messages asked for and not answered" in edge.log
    gate.open("slow")


async def test_it_waits_for_the_broker_and_ends_when_told_to(mail: Mail, start_edge: StartEdge) -> None:
    edge = await start_edge(FILES, amqp_url="amqp://127.0.0.1:1/")
    await until(lambda: "waiting for RabbitMQ" in edge.log, "it waits")
    began = time.monotonic()
    assert await edge.stop() == ExitCode.OK
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("interface", "arguments", "code", "text"),
    [
        ("tests.bots.polling_edge:missing", [], ExitCode.APP, "has no attribute 'missing'"),
        ("tests.bots.polling_edge:nothing", [], ExitCode.APP, "neither a messenger interface nor"),
        ("tests.bots.polling_edge:failing", [], ExitCode.APP, "without parameters failed: KeyError: 'TELEGRAM_TOKEN'"),
        ("builtins:dict", [], ExitCode.USAGE, "dict is no messenger interface"),
        (FILES, ["--name", "two words"], ExitCode.USAGE, "1-50 of A-Z"),
        (FILES, ["--amqp-url", "memory://"], ExitCode.USAGE, "SWITCHBOARD_AMQP_URL"),
    ],
)
async def test_what_cannot_be_connected_is_told_with_its_exit_code(
    start_edge: StartEdge, interface: str, arguments: list[str], code: ExitCode, text: str
) -> None:
    edge = await start_edge(interface, *arguments)
    assert await edge.ended() == code
    assert text in edge.log
    assert "Traceback" not in edge.log


async def test_a_broker_that_refuses_is_told_with_its_exit_code(amqp_url: str, start_edge: StartEdge) -> None:
    parts = urlsplit(amqp_url)
    wrong = f"amqp://nobody:wrong@{parts.hostname}:{parts.port}/"
    edge = await start_edge(FILES, amqp_url=wrong)
    assert await edge.ended() == ExitCode.BROKER, edge.log


class Console:
    """Chatsky's console in an edge, and its user."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.shown = ""

    @classmethod
    async def start(cls, settings: dict[str, str]) -> Self:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        pipe = asyncio.subprocess.PIPE
        arguments = ["-m", "worker.cli", "edge", "chatsky.messengers.console:CLIMessengerInterface"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, env=environ | settings, stdin=pipe, stdout=pipe
        )
        return cls(process)

    async def shows(self, text: str) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while text not in self.shown:
                chunk = await self._process.stdout.read(1000)
                assert chunk, f"it ended, having shown {self.shown!r}"
                self.shown += chunk.decode()

    def close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def ends(self) -> int:
        async with asyncio.timeout(5):
            return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


@pytest.fixture
async def console(worker_settings: dict[str, str]) -> AsyncIterator[Console]:
    console = await Console.start(worker_settings)
    yield console
    await console.kill()


@pytest.mark.parametrize("ending", ["end of input", signal.SIGTERM, signal.SIGINT])
async def test_chatskys_console_talks_to_the_bot_and_ends_at_once(
    bot: WorkerProcess, console: Console, ending: signal.Signals | str
) -> None:
    await console.shows("request: ")
    console.type("hello\n")
    await console.shows("response: text='1: hello'\nrequest: ")
    console.type("fail\nstill there?\n")
    await console.shows("response: text='2: still there?'\nrequest: ")
    began = time.monotonic()
    if isinstance(ending, signal.Signals):
        console.signal(ending)
    else:
        console.close_input()
    assert await console.ends() == ExitCode.OK
    assert time.monotonic() - began < 2
