"""Attachments of the interface on the broker: what passes, where a bot's files go, and who is asked for bytes. With the
embedded broker and a store in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Pipeline
from chatsky import Context as ChatskyContext
from chatsky import Message as ChatskyMessage
from chatsky import Transition as Tr
from chatsky.core.message import Document as ChatskyDocument

from interfaces import (
    BrokerClient,
    Context,
    DataAttachment,
    Document,
    Image,
    Location,
    MediaGroup,
    Message,
    Origin,
    RabbitMQMessengerInterface,
    Reply,
    Topology,
)
from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_requests import AttachmentRequests
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.references import Reference
from worker import Settings, Worker

DATA = b"what a user sent"


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def transfer(tmp_path: Path) -> AttachmentTransfer:
    store = AttachmentStore("memory://", max_bytes=1000, ttl=3600)
    return AttachmentTransfer(store, AttachmentCache(tmp_path, max_bytes=10_000), across_processes=False)


@asynccontextmanager
async def connected(interface: RabbitMQMessengerInterface, runner: Any) -> AsyncIterator[None]:
    working = asyncio.create_task(interface.connect(runner))
    await interface.wait_consuming()
    yield
    interface.stop()
    await working


async def ask(server: MemoryServer, message: Message) -> Reply:
    async with BrokerClient(broker=MemoryBroker(server), timeout=5) as client:
        return await client.ask(message, "ada")


class PicturesOnly(RabbitMQMessengerInterface):
    supported_request_attachment_types: ClassVar = {Image, MediaGroup}
    supported_response_attachment_types: ClassVar = {Document}


async def test_types_that_are_not_supported_are_neglected_counted_and_logged(
    server: MemoryServer, transfer: AttachmentTransfer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen: list[Any] = []

    async def runner(message: Message, ctx_id: Any = None, update_ctx_misc: Any = None) -> Context:
        seen.extend(message.attachments or [])
        answer = Message("here", attachments=[Location(longitude=1, latitude=2), Document(id="kept")])
        return Context(id=str(ctx_id), requests={1: message}, responses={1: answer}, current_turn_id=1)

    interface = PicturesOnly(broker=MemoryBroker(server), attachments=transfer)
    picture, group = Image(id="one"), MediaGroup(group=[Image(id="two"), Document(id="three")])
    async with connected(interface, runner):
        reply = await ask(server, Message("look", attachments=[Location(longitude=1, latitude=2), picture, group]))
    assert seen == [picture, MediaGroup(group=[Image(id="two")])]
    assert reply.message == Message("here", attachments=[Document(id="kept")])
    assert interface.neglected.counts == {"Location": 2, "Document": 1}
    told = [record.message for record in caplog.records if "neglected" in record.message]
    assert told == [
        "PicturesOnly cannot receive attachments of type Location: neglected",
        "PicturesOnly cannot receive attachments of type Document: neglected",
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(attachments_directory=tmp_path, retry_wait=0, drain_timeout=1)


@asynccontextmanager
async def worker_of(bot: Any, server: MemoryServer, settings: Settings) -> AsyncIterator[None]:
    worker = Worker(bot, settings, broker=MemoryBroker(server))
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    yield
    worker.stop()
    await working


async def tell_bytes(ctx: Context) -> Message:
    (attachment,) = ctx.last_request.attachments or []
    assert isinstance(attachment, DataAttachment)
    try:
        return Message((await ctx.attachment_bytes(attachment)).decode())
    except Exception as error:  # noqa: BLE001 - told to the test
        return Message(f"{type(error).__name__}: {error}")


class TellBytes(BaseResponse):
    async def call(self, ctx: ChatskyContext) -> ChatskyMessage:
        attachment = ctx.last_request.attachments[0]
        data = await attachment.get_bytes(ctx.pipeline.messenger_interface)
        path = Path(ctx.pipeline.messenger_interface.attachments_directory) / "answer.txt"
        path.write_bytes(data[::-1])
        return ChatskyMessage(data.decode(), attachments=[ChatskyDocument(source=path)])


pipeline = Pipeline(
    script={"flow": {"node": {RESPONSE: TellBytes(), TRANSITIONS: [Tr(dst="node")]}}}, start_label=("flow", "node")
)


@pytest.mark.parametrize("bot", [tell_bytes, pipeline], ids=["handler", "pipeline"])
async def test_an_id_of_a_messenger_is_asked_of_the_edge_that_the_message_came_through(
    bot: Any, server: MemoryServer, transfer: AttachmentTransfer, settings: Settings
) -> None:
    async def give(identity: str) -> Reference:
        return await transfer.keep(f"{identity} of the messenger".encode())

    broker = MemoryBroker(server)
    await broker.open()
    edge = asyncio.create_task(AttachmentRequests(broker, Topology(), "telegram", give).run())
    async with worker_of(bot, server, settings):
        message = Message(attachments=[Image(id="file-1")], origin=Origin(interface="telegram"))
        reply = await ask(server, message)
    edge.cancel()
    await asyncio.gather(edge, return_exceptions=True)
    await broker.close()
    assert reply.message is not None
    assert reply.message.text == "file-1 of the messenger"


async def test_a_pipeline_reads_what_was_sent_and_sends_a_file_of_its_own(
    server: MemoryServer, transfer: AttachmentTransfer, settings: Settings
) -> None:
    reference = await transfer.keep(DATA)
    async with worker_of(pipeline, server, settings):
        reply = await ask(server, Message(attachments=[Document(id=str(reference))]))
    assert reply.message is not None
    assert reply.message.text == DATA.decode()
    (answer,) = reply.message.attachments or []
    assert isinstance(answer, Document)
    assert (answer.source, answer.model_extra) == (
        None,
        {"size": len(DATA), "media_type": "text/plain", "filename": "answer.txt"},
    )
    sent = Reference.parse(answer.id or "")
    assert sent is not None
    assert await transfer.fetch(sent) == DATA[::-1]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            Message(attachments=[Image(source="http://169.254.169.254/x")]),
            "AttachmentUrlRefused: attachments are not fetched from http://169.254.169.254:80: it is not in SWITCH",
        ),
        (Message(attachments=[Image(id="file-1")]), "AttachmentMissing: attachment 'file-1' is no reference"),
        (Message(attachments=[Image(id="attachment:sha256:ab:1")]), "AttachmentReferenceInvalid: "),
    ],
    ids=["a URL", "an id of nobody's", "a malformed reference"],
)
async def test_what_nobody_can_give_is_told_to_the_bot(
    message: Message, told: str, server: MemoryServer, settings: Settings
) -> None:
    async with worker_of(tell_bytes, server, settings):
        reply = await ask(server, message)
    assert reply.message is not None
    assert (reply.message.text or "").startswith(told)


async def test_a_file_that_cannot_be_sent_rejects_the_turn_and_tells_the_sender_nothing_of_it(
    server: MemoryServer, settings: Settings, tmp_path: Path
) -> None:
    async def bot(_: Context) -> Message:
        return Message(attachments=[Document(source=tmp_path / "secret-name")])

    async with worker_of(bot, server, settings):
        reply = await ask(server, Message("hi"))
    assert reply.error is not None
    assert reply.error.code == "reply-invalid"
    assert "secret-name" not in reply.error.detail
