"""Chatsky's Telegram interfaces, unchanged, in an edge process before the broker, and a bot in a worker process."""

import json
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from interfaces.errors import ExitCode
from tests.integration.conftest import Report, StartWorker
from tests.integration.faults import until
from tests.services.bot_api import DIRECTORY, PORT, SERVER, TOKEN, BotApi
from tests.services.processes import WorkerProcess
from tests.services.servers import free_port

StartEdge = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as api:
        yield api


@pytest.fixture
def worker_settings(worker_settings: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """With an attachment store that worker and edge share, and nothing else that they do."""
    return worker_settings | {
        "SWITCHBOARD_ATTACHMENTS_URL": (tmp_path / "store").as_uri(),
        "SWITCHBOARD_ATTACHMENTS_DIRECTORY": str(tmp_path / "of the worker"),
    }


@pytest.fixture
def start_edge(
    api: BotApi, processes: list[WorkerProcess], worker_settings: dict[str, str], tmp_path: Path
) -> StartEdge:
    """Starts `switchboard edge` with one of the interfaces. Wait with `ready()`."""

    async def start_edge(interface: str, port: int | None = None) -> WorkerProcess:
        own = {
            SERVER: api.url,
            DIRECTORY: str(tmp_path / "of the edge"),
            "SWITCHBOARD_ATTACHMENTS_DIRECTORY": str(tmp_path / "of the edge"),
            PORT: str(port or free_port()),
        }
        command = ["-m", "worker.cli", "edge", f"tests.bots.telegram_edge:{interface}"]
        process = await WorkerProcess.start(command, worker_settings | own)
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
    assert [sent.fields["text"] for sent in await api.received(1, 2)] == ["1: hello", "2: None: yes"]
    assert [sent.fields["text"] for sent in await api.received(2, 1)] == ["1: hello"]
    assert await edge.stop() == 0, edge.log
    assert TOKEN not in edge.log


async def test_a_slow_dialog_holds_up_no_other_chat_and_a_failed_one_ends_nothing(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge, report: Report
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    for text in ("slow", "second", "third"):
        await api.say(1, text)
    await api.say(3, "fail")
    began = time.monotonic()
    for text in "abcde":
        await api.say(2, text)
    texts = [sent.fields["text"] for sent in await api.received(2, 5)]
    report(f"five messages of one chat were answered in {time.monotonic() - began:.2f} s while another's took 2 s")
    assert texts == ["1: a", "2: b", "3: c", "4: d", "5: e"]
    assert not [sent for sent in api.sent if sent.chat == 1]
    assert [sent.fields["text"] for sent in await api.received(1, 3)] == ["1: slow", "2: second", "3: third"]
    await api.say(3, "again")
    assert [sent.fields["text"] for sent in await api.received(3, 1)] == ["1: again"]
    assert "handler-failed" in edge.log


FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "document": ("sendDocument", {"file_name": "report.pdf", "mime_type": "application/pdf"}),
    "voice": ("sendVoice", {"duration": 3, "mime_type": "audio/ogg"}),
    "audio": ("sendAudio", {"duration": 3, "title": "A song"}),
    "video": ("sendVideo", {"duration": 3, "width": 640, "height": 480}),
    "video_note": ("sendVideoNote", {"duration": 3, "length": 240}),
}


async def test_files_go_there_and_back_byte_by_byte(api: BotApi, bot: WorkerProcess, start_edge: StartEdge) -> None:
    edge = await (await start_edge("longpolling")).ready()
    sent: list[tuple[str, bytes]] = []
    for kind, (method, fields) in FILES.items():
        data = random.randbytes(200_000)
        await api.say(1, None, **{kind: api.file(data) | fields})
        sent.append((method, data))
    photo = random.randbytes(300_000)
    await api.say(1, photo=[api.file(photo) | {"width": 640, "height": 480}])
    sent.append(("sendPhoto", photo))

    received = await api.received(1, 2 * len(sent))
    assert [message.fields["text"] for message in received[::2]] == [f"{n}: None" for n in range(1, len(sent) + 1)]
    assert [(message.method, message.file[::-1]) for message in received[1::2]] == sent
    assert await edge.stop() == 0, edge.log


async def test_a_place_goes_there_and_back(api: BotApi, bot: WorkerProcess, start_edge: StartEdge) -> None:
    await (await start_edge("longpolling")).ready()
    await api.say(1, location={"latitude": 59.9386, "longitude": 30.3141})
    _, place = await api.received(1, 2)
    assert place.method == "sendLocation"
    assert (place.fields["latitude"], place.fields["longitude"]) == ("59.9386", "30.3141")


async def test_media_groups_go_there_and_back(api: BotApi, bot: WorkerProcess, start_edge: StartEdge) -> None:
    await (await start_edge("longpolling")).ready()
    photos = [random.randbytes(100_000) for _ in range(3)]
    for photo in photos:  # Telegram sends each member of a user's album as a message of its own.
        size = api.file(photo) | {"width": 640, "height": 480}
        await api.say(1, photo=[size], caption="album", media_group_id="7")
    received = await api.received(1, 2 * len(photos))
    assert [message.fields["text"] for message in received[::2]] == ["1: album", "2: album", "3: album"]
    for photo, message in zip(photos, received[1::2], strict=True):
        assert message.method == "sendMediaGroup"
        assert [media["type"] for media in json.loads(message.fields["media"])] == ["photo", "photo"]
        assert [message.attached(media) for media in json.loads(message.fields["media"])] == [photo[::-1], photo]


async def test_a_file_telegram_does_not_give_fails_that_message_alone(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    await api.say(1, document=api.file(b"x") | {"file_id": "of another bot"})
    await api.say(1, "next")
    assert [sent.fields["text"] for sent in await api.received(1, 1)] == ["1: next"]
    assert "handler-failed" in edge.log
    assert "Invalid file_id" in bot.log


async def test_a_slow_dialog_is_answered_before_the_edge_ends(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    await api.say(1, "slow")
    await api.say(2, "quick")
    await api.received(2, 1)
    assert not [sent for sent in api.sent if sent.chat == 1]
    assert await edge.stop() == ExitCode.OK, edge.log
    assert [sent.fields["text"] for sent in api.sent if sent.chat == 1] == ["1: slow"]
    assert await api.unconfirmed() == []


async def test_it_waits_for_telegram_at_the_start_and_ends_when_told_to(api: BotApi, start_edge: StartEdge) -> None:
    api.failing = lambda method: method == "getMe"
    waiting, stopped = await start_edge("longpolling"), await start_edge("longpolling")
    for edge in (waiting, stopped):
        await until(lambda edge=edge: "waiting for Telegram" in edge.log, "it waits")  # type: ignore[misc]  # mypy cannot type a lambda's default
    assert await stopped.stop() == ExitCode.OK, stopped.log
    assert not re.search(r"edge ready", waiting.log)
    api.failing = lambda _: False
    await waiting.ready()


async def test_it_goes_on_when_telegram_is_back(api: BotApi, bot: WorkerProcess, start_edge: StartEdge) -> None:
    edge = await (await start_edge("longpolling")).ready()
    api.failing = lambda method: method == "getUpdates"
    await api.say(1, "let the running fetch return")
    await until(lambda: "fetching updates from Telegram failed" in edge.log, "a fetch fails")
    api.failing = lambda _: False
    await api.say(1, "hello")
    assert (await api.received(1, 2))[1].fields["text"] == "2: hello"


async def test_an_answer_telegram_does_not_take_ends_nothing(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    api.failing = lambda method: method == "sendMessage"
    await api.say(1, "one")
    await until(lambda: api.calls["sendMessage"] == 1, "an answer is refused")
    api.failing = lambda _: False
    await api.say(1, "two")
    assert [sent.fields["text"] for sent in await api.received(1, 1)] == ["2: two"]
    assert edge.is_running


@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_a_token_that_is_refused_ends_it_and_is_not_told(api: BotApi, start_edge: StartEdge, when: str) -> None:
    api.token = "999:another" if when == "at the start" else TOKEN
    edge = await start_edge("longpolling")
    if when == "later":
        await edge.ready()
        api.token = "999:another"  # noqa: S105 - no token of anybody
        await api.say(1, "let the running fetch return")
    assert await edge.ended() == (ExitCode.APP if when == "at the start" else ExitCode.CONSUMER_LOST), edge.log
    assert TOKEN not in edge.log


async def test_a_port_that_is_taken_ends_it(api: BotApi, start_edge: StartEdge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        edge = await start_edge("webhook", port=taken.getsockname()[1])
        assert await edge.ended() == ExitCode.FAILED
    assert "in use" in edge.log


async def test_large_files_leave_the_edge_small(
    api: BotApi, bot: WorkerProcess, start_edge: StartEdge, report: Report
) -> None:
    edge = await (await start_edge("longpolling")).ready()
    files = [random.randbytes(20 * 1024 * 1024) for _ in range(4)]
    for chat, data in enumerate(files):
        await api.say(chat, document=api.file(data) | {"file_name": f"{chat}.bin"})
    for chat, data in enumerate(files):
        assert (await api.received(chat, 2))[1].file == data[::-1]
    await api.say(9, document=api.file(b"x" * (20 * 1024 * 1024 + 1)) | {"file_name": "large.bin"})
    await until(lambda: "handler-failed" in edge.log, "one byte more is refused")
    assert "are allowed" in bot.log
    peak = memory_peak(edge)
    report(f"edge at most {peak / 2**20:.0f} MiB, with {len(files)} files of 20 MiB in and out at a time")
    assert peak < 150 * 2**20


def memory_peak(process: WorkerProcess) -> int:
    """Bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024
