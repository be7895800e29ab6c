"""Attachments that are URLs, as bots and interfaces get them: by the allow list, and by nothing else.

With the embedded broker, and a web server on this machine in the place of a public one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import chatsky.core.message
import pytest
from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Pipeline
from chatsky import Context as ChatskyContext
from chatsky import Message as ChatskyMessage
from chatsky import Transition as Tr
from chatsky.core.message import Image as ChatskyImage
from chatsky.messengers.common import MessengerInterfaceWithAttachments as ChatskyInterface

import worker.attachments
from interfaces import BrokerClient, Context, DataAttachment, Image, Message
from interfaces.allowed_hosts import parse_allowed
from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.edge import Edge
from interfaces.errors import AttachmentTooLarge, AttachmentUrlRefused
from interfaces.url_fetching import FetchRules
from tests.services.web_server import WebServer, Wiring, answer
from worker import Settings, Worker

URL = "http://files.example.org/picture"
FROM = "http://files.example.org"
DATA = b"a picture"


async def public(_: str, __: int) -> list[str]:
    return ["93.184.215.14"]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        server.handlers["/picture"] = answer(DATA)
        yield server


@pytest.fixture
def rules(web: WebServer) -> FetchRules:
    return FetchRules(parse_allowed(FROM), 5, public, Wiring({80: web.port}))


@pytest.fixture
def transfer(tmp_path: Path, rules: FetchRules) -> AttachmentTransfer:
    store = AttachmentStore("memory://", max_bytes=1000, ttl=3600)
    cache = AttachmentCache(tmp_path / "cache", max_bytes=10_000)
    return AttachmentTransfer(store, cache, across_processes=False, rules=rules)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """URLs that Chatsky has opened itself."""
    opened: list[str] = []
    monkeypatch.setattr(chatsky.core.message, "urlopen", opened.append)
    return opened


async def tell_bytes(ctx: Context) -> str:
    if not ctx.last_request.attachments:
        return "none"
    (attachment,) = ctx.last_request.attachments
    assert isinstance(attachment, DataAttachment)
    try:
        return (await ctx.attachment_bytes(attachment)).decode()
    except AttachmentUrlRefused as error:
        return str(error)


class TellBytes(BaseResponse):
    async def call(self, ctx: ChatskyContext) -> ChatskyMessage:
        if not ctx.last_request.attachments:
            return ChatskyMessage("none")
        (attachment,) = ctx.last_request.attachments
        try:
            data = await attachment.get_bytes(ctx.pipeline.messenger_interface)
        except AttachmentUrlRefused as error:
            return ChatskyMessage(str(error))
        return ChatskyMessage(data.decode())


pipeline = Pipeline(
    script={"flow": {"node": {RESPONSE: TellBytes(), TRANSITIONS: [Tr(dst="node")]}}}, start_label=("flow", "node")
)

each_bot = pytest.mark.parametrize("bot", [tell_bytes, pipeline], ids=["handler", "pipeline"])


@asynccontextmanager
async def asking(
    bot: Any, rules: FetchRules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch_from: str = FROM
) -> AsyncIterator[BrokerClient]:
    """A worker whose public internet is the web server, and somebody who asks it."""
    monkeypatch.setattr(
        worker.attachments, "FetchRules", partial(FetchRules, resolve=rules.resolve, network=rules.network)
    )
    server = MemoryServer()
    settings = Settings(attachments_directory=tmp_path, retry_wait=0, drain_timeout=1, fetch_from=fetch_from)
    running = Worker(bot, settings, broker=MemoryBroker(server))
    working = asyncio.create_task(running.run())
    await running.wait_ready()
    async with BrokerClient(broker=MemoryBroker(server), timeout=5) as client:
        yield client
    running.stop()
    await working


async def text(client: BrokerClient, *attachments: Image, ctx_id: str = "ada") -> str:
    reply = await client.ask(Message("hi", attachments=attachments), ctx_id)
    assert reply.message is not None, reply.error
    return reply.message.text or ""


@each_bot
async def test_a_bot_reads_what_an_allowed_host_gives(
    bot: Any, rules: FetchRules, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(bot, rules, tmp_path, monkeypatch) as client:
        assert await text(client, Image(source=URL)) == DATA.decode()
    assert opened == []


@each_bot
@pytest.mark.parametrize("fetch_from", ["", "other.example.org"])
async def test_a_bot_is_told_which_setting_would_allow_a_host(
    bot: Any,
    fetch_from: str,
    web: WebServer,
    rules: FetchRules,
    opened: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asking(bot, rules, tmp_path, monkeypatch, fetch_from) as client:
        assert "SWITCHBOARD_FETCH_FROM" in await text(client, Image(source=URL))
    assert (opened, web.requests) == ([], [])


@each_bot
async def test_other_dialogs_go_on_while_one_waits_for_a_server(
    bot: Any, web: WebServer, rules: FetchRules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter, path: str) -> None:
        asked.set()
        await go_on.wait()
        await answer(DATA)(writer, path)

    web.handlers["/picture"] = wait
    async with asking(bot, rules, tmp_path, monkeypatch) as client:
        waiting = asyncio.create_task(text(client, Image(source=URL)))
        await asked.wait()
        assert await text(client, ctx_id="grace") == "none"
        assert not waiting.done()
        go_on.set()
        assert await waiting == DATA.decode()


async def test_more_than_an_attachment_may_have_is_not_fetched(transfer: AttachmentTransfer, web: WebServer) -> None:
    web.handlers["/picture"] = answer(b"x" * 1001)
    with pytest.raises(AttachmentTooLarge):
        await transfer.fetch_url(URL)
    assert list(transfer.cache.directory.iterdir()) == []


class TheirInterface(ChatskyInterface):
    """One of Chatsky's, which gives bytes by id alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.attachments_directory = directory  # Chatsky takes another for one that is below the system's temporary one

    async def connect(self, pipeline_runner: Any) -> None:
        """Nothing to do."""

    async def get_attachment_bytes(self, source: str) -> bytes:
        return f"{source} of the messenger".encode()


async def test_an_interface_of_chatskys_at_the_edge_gets_urls_by_the_allow_list(
    transfer: AttachmentTransfer, opened: list[str], tmp_path: Path
) -> None:
    interface = TheirInterface(tmp_path)
    Edge(interface, BrokerClient(broker=MemoryBroker(MemoryServer())), transfer)
    picture = ChatskyImage(source=URL)
    assert await picture.get_bytes(interface) == DATA
    assert picture.cached_filename.parent == interface.attachments_directory
    assert await ChatskyImage(id="file-1").get_bytes(interface) == b"file-1 of the messenger"
    with pytest.raises(AttachmentUrlRefused, match="SWITCHBOARD_FETCH_FROM"):
        await ChatskyImage(source="http://127.0.0.1/").get_bytes(interface)
    assert opened == []


async def test_an_interface_that_is_not_on_the_broker_fetches_nothing(opened: list[str], tmp_path: Path) -> None:
    interface = TheirInterface(tmp_path)
    with pytest.raises(AttachmentUrlRefused, match=r"ctx\.pipeline\.messenger_interface"):
        await ChatskyImage(source=URL).get_bytes(interface)
    assert opened == []


@pytest.mark.parametrize("kind", [Image, ChatskyImage], ids=["ours", "Chatsky's"])
async def test_what_is_kept_of_an_attachment_is_read_from_the_directory_alone_and_through_no_link(
    kind: Any, tmp_path: Path
) -> None:
    interface = TheirInterface(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    attachment = kind(id="file-1")
    attachment.cached_filename = secret
    assert await attachment.get_bytes(interface) == b"file-1 of the messenger"
    kept = attachment.cached_filename
    assert kept.parent == interface.attachments_directory
    kept.unlink()
    kept.symlink_to(secret)
    assert await attachment.get_bytes(interface) == b"file-1 of the messenger"
    assert not kept.is_symlink()
    assert secret.read_bytes() == b"secret"
