"""Chatsky's Telegram interfaces, unchanged, in an edge process before the broker, and a bot in a worker process."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.services.bot_api import DIRECTORY, PORT, SERVER, TOKEN, BotApi
from tests.services.processes import WorkerProcess
from tests.services.servers import free_port

StartEdge = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as api:
        yield api


@pytest.fixture
def start_edge(
    api: BotApi, processes: list[WorkerProcess], worker_settings: dict[str, str], tmp_path: Path
) -> StartEdge:
    """Starts `switchboard edge INTERFACE ARGUMENTS`. Wait with `ready()`."""

    async def start_edge(interface: str, *arguments: str, **settings: object) -> WorkerProcess:
        own = {
            SERVER: api.url,
            DIRECTORY: str(tmp_path / "attachments"),
            PORT: str(free_port()),
        }
        further = {f"SWITCHBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        command = ["-m", "worker.cli", "edge", f"tests.bots.telegram_edge:{interface}", *arguments]
        process = await WorkerProcess.start(command, worker_settings | own | further)
        processes.append(process)
        return process

    return start_edge


@pytest.fixture
async def bot(start_worker: StartWorker) -> WorkerProcess:
    return await (await start_worker("tests.bots.echoing:bot")).ready()


@pytest.mark.parametrize("interface", ["longpolling", "webhook"])
async def test_texts_and_buttons_go_there_and_back(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge, interface: str
) -> None:
    edge = await (await start_edge(interface)).ready()
    for chat in (1, 2):
        await api.say(chat, "hello")
    await api.press(1, "yes")
    assert [sent.fields["text"] for sent in await api.received(1, 2)] == ["1: hello", "2: None; yes"]
    assert [sent.fields["text"] for sent in await api.received(2, 1)] == ["1: hello"]
    assert await edge.stop() == 0, edge.log
    assert TOKEN not in edge.log


async def test_a_slow_dialog_holds_up_no_other_chat_and_a_failed_one_ends_nothing(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    for text in ("slow", "second", "third"):
        await api.say(1, text)
    await api.say(3, "fail")
    began = time.monotonic()
    for number in range(10):
        await api.say(2, str(number))
    texts = [sent.fields["text"] for sent in await api.received(2, 10)]
    fast = time.monotonic() - began
    assert texts == [f"{number + 1}: {number}" for number in range(10)]
    assert fast < 1.5 and not [sent for sent in api.sent if sent.chat == 1]
    assert [sent.fields["text"] for sent in await api.received(1, 3)] == ["1: slow", "2: second", "3: third"]
    await api.say(3, "again")
    assert [sent.fields["text"] for sent in await api.received(3, 1)] == ["1: again"]
    assert "handler-failed" in edge.log
