"""The edge around interfaces of both libraries, before a broker and a worker in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interfaces import messages
from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.edge import Edge, edge_name
from interfaces.errors import AskTimeout, BrokerUnavailable, MisuseError, RequestFailed
from interfaces.messages import CallbackQuery, Document, Image, Message, Origin
from interfaces.messengers import (
    CallbackMessengerInterface,
    MessengerInterfaceWithAttachments,
    PollingMessengerInterface,
    Updates,
)
from interfaces.nested_loops import nested_loops_prevented
from tests.integration.faults import Gate, running, until, worker_settings
from worker.running import Worker

with nested_loops_prevented():
    import chatsky
    from chatsky.core import message as theirs
    from chatsky.messengers import common


class Ours(CallbackMessengerInterface, MessengerInterfaceWithAttachments):
    supported_request_attachment_types = {Image, Document}  # noqa: RUF012 - the seed's own way to say it
    supported_response_attachment_types = {Image}  # noqa: RUF012 - as above

    async def get_attachment_bytes(self, source: str) -> bytes:
        raise NotImplementedError


class Theirs(common.CallbackMessengerInterface, common.MessengerInterfaceWithAttachments):
    supported_request_attachment_types = {theirs.Image, theirs.Document}  # noqa: RUF012 - as above
    supported_response_attachment_types = {theirs.Image}  # noqa: RUF012 - as above

    async def get_attachment_bytes(self, source: str) -> bytes:
        raise NotImplementedError


BOTH = pytest.mark.parametrize("kind", [Ours, Theirs])


def library_of(kind: type) -> Any:
    """The module that holds the types of messages of an interface."""
    return messages if kind is Ours else theirs


def said(kind: type, text: str | None = None, **fields: Any) -> Any:
    """A message of the library that an interface is of."""
    return library_of(kind).Message(text, **fields)


class Bot:
    """Notes the contexts it is given; answers by what the test put into `answers`."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.answer: Message | None = Message("answer", parse_mode="HTML")

    async def __call__(self, ctx: Context) -> Message | None:
        self.requests.append(ctx.last_request)
        if ctx.last_request.text == "fail":
            raise ZeroDivisionError
        ctx.misc["turns"] = ctx.current_turn_id
        return self.answer


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
def transfer(tmp_path: Path) -> AttachmentTransfer:
    store = AttachmentStore((tmp_path / "store").as_uri(), max_bytes=1000, ttl=3600)
    cache = AttachmentCache(tmp_path / "cache", max_bytes=10_000)
    return AttachmentTransfer(store, cache, across_processes=False)


@asynccontextmanager
async def edge(
    interface: Any, bot: Any, transfer: AttachmentTransfer, tmp_path: Path, *, timeout: float = 30, **options: Any
) -> AsyncIterator[Edge]:
    """A running edge, stopped at the end; its worker's turns are not tried twice."""
    url, namespace = f"memory://{tmp_path}", "edges"
    settings = worker_settings(namespace, attempts=1).model_copy(update={"drain_timeout": 0.0})
    async with BrokerClient(url, namespace=namespace, timeout=timeout) as client:
        worker = Worker(bot, settings, broker=client._broker)
        async with running(worker):
            edge = Edge(interface, client, transfer, **options)
            working = asyncio.create_task(edge.run())
            await until(lambda: working.done() or interface._pipeline_runner is not None, "the interface is connected")
            try:
                yield edge
            finally:
                edge.stop()
                async with asyncio.timeout(20):
                    await working


@pytest.mark.parametrize(
    ("own", "name"),
    [("LongpollingInterface", "LongpollingInterface"), ("my interface: ü", "my-interface---"), ("x" * 60, "x" * 50)],
)
def test_an_interface_goes_by_its_id_as_far_as_a_name_may_hold_it(own: str, name: str) -> None:
    interface = Ours()
    interface.id = own
    assert edge_name(interface) == name
    assert edge_name(interface, "another_1") == "another_1"


@pytest.mark.parametrize("name", ["", "two words", "x" * 51, "ü", "a.b", "a\n"])
def test_a_name_that_cannot_travel_is_refused(name: str) -> None:
    with pytest.raises(MisuseError, match="1-50 of A-Z"):
        edge_name(Ours(), name)


def test_what_is_no_interface_is_told_so(transfer: AttachmentTransfer) -> None:
    with pytest.raises(MisuseError, match="int is no messenger interface"):
        Edge(7, BrokerClient(), transfer)


@BOTH
async def test_a_context_of_its_own_library_comes_back(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    async with edge(interface := kind(), bot, transfer, tmp_path):
        first = await interface.on_request_async(said(kind, "one", urgency=3), "ada", {"lang": "en"})
        request = said(kind, "two")
        context = await interface.on_request_async(request, "ada")
        unnamed = await interface.on_request_async(said(kind, "three"))
    assert type(context) is (Context if kind is Ours else chatsky.Context)
    assert (context.id, context.current_turn_id) == ("ada", 2)
    assert context.misc == {"lang": "en", "turns": 2}
    response: Any = context.last_response
    assert type(response) is type(request)
    assert (response.text, response.parse_mode) == ("answer", "HTML")
    assert first.last_request.urgency == 3
    assert context.last_request.text == "two"
    assert unnamed.current_turn_id == 1
    assert bot.requests[0].model_extra == {"urgency": 3}
    assert [request.origin and request.origin.interface for request in bot.requests] == [kind.__name__] * 3


class Update:
    """A messenger's own object, as Telegram's library has them."""

    def to_dict(self) -> dict[str, Any]:
        return {"update_id": 7}


async def test_chatskys_interface_gets_back_the_very_request_and_the_bot_sees_its_origin_as_json(
    bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    update = Update()
    request = said(Theirs, "hello")
    request.origin = theirs.Origin.model_construct(message=update, interface="whatever it says")
    async with edge(interface := Theirs(), bot, transfer, tmp_path, name="support"):
        context = await interface.on_request_async(request, "ada")
    assert context.last_request is request
    assert context.last_request.origin.message is update
    assert bot.requests[0].origin == Origin(message={"update_id": 7}, interface="support")


@BOTH
async def test_an_origin_that_is_a_string_never_travels(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    origin = Origin(message="gASVCg") if kind is Ours else theirs.Origin.model_construct(message="gASVCg")
    request = said(kind, "hello")
    request.origin = origin
    async with edge(interface := kind(), bot, transfer, tmp_path):
        await interface.on_request_async(request, "ada")
    assert bot.requests[0].origin == Origin(interface=kind.__name__)


@BOTH
async def test_a_turn_that_fails_is_told_to_its_caller_and_the_others_are_answered(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    async with edge(interface := kind(), bot, transfer, tmp_path):
        texts = ["one", "fail", "two"]
        outcomes = await asyncio.gather(
            *(interface.on_request_async(said(kind, text), text) for text in texts), return_exceptions=True
        )
        with pytest.raises((ValueError, MisuseError), match="weird"):
            await interface.on_request_async(said(kind, "x", misc={"weird": object()}), "ada")
        bot.answer = None
        assert (await interface.on_request_async(said(kind, "say nothing"), "ada")).last_response is None
    assert [type(outcome).__name__ for outcome in outcomes] == ["Context", "RequestFailed", "Context"]
    assert isinstance(outcomes[1], RequestFailed)


@BOTH
async def test_unsupported_attachments_are_dropped_in_both_directions_and_an_event_is_not(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = library_of(kind)
    place, query = library.Location(latitude=1, longitude=2), library.CallbackQuery(query_string="yes")
    request = said(kind, attachments=[library.Image(id="1"), place, query])
    bot.answer = Message("see", attachments=[Document(id="2"), Image(id="3")])
    async with edge(interface := kind(), bot, transfer, tmp_path) as running_edge:
        context = await interface.on_request_async(request, "ada")
    assert bot.requests[0].attachments == [Image(id="1"), CallbackQuery(query_string="yes")]
    assert context.last_response.attachments == [library.Image(id="3")]
    assert running_edge._runner.neglected.counts == {"Location": 1, "Document": 1}
    assert "cannot send attachments of type Document" in caplog.text


@BOTH
async def test_files_travel_as_references_and_come_back_as_files(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    (tmp_path / "sent.png").write_bytes(b"of the user")
    bot.answer = Message(attachments=[Image(id=str(await transfer.keep(b"of the bot")))])
    async with edge(interface := kind(), bot, transfer, tmp_path):
        request = said(kind, attachments=[library_of(kind).Image(source=tmp_path / "sent.png")])
        context = await interface.on_request_async(request, "ada")
        received = await context.last_response.attachments[0].get_bytes(interface)
    (sent,) = bot.requests[0].attachments or []
    assert isinstance(sent, Image)
    assert sent.source is None
    assert sent.id is not None
    assert sent.id.startswith("attachment:sha256:")
    assert received == b"of the bot"


@BOTH
async def test_messages_of_one_context_keep_their_order_though_the_first_has_a_file_to_upload(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sent.png").write_bytes(b"of the user")
    uploading, may_upload = asyncio.Event(), asyncio.Event()
    upload = transfer.upload

    async def slow_upload(message: Message) -> Message:
        if message.attachments:
            uploading.set()
            await may_upload.wait()
        return await upload(message)

    monkeypatch.setattr(transfer, "upload", slow_upload)
    async with edge(interface := kind(), bot, transfer, tmp_path):
        request = said(kind, "first", attachments=[library_of(kind).Image(source=tmp_path / "sent.png")])
        first = asyncio.create_task(interface.on_request_async(request, "ada"))
        await uploading.wait()
        second = asyncio.create_task(interface.on_request_async(said(kind, "second"), "ada"))
        await interface.on_request_async(said(kind, "of another"), "bob")
        may_upload.set()
        await asyncio.gather(first, second)
    assert [request.text for request in bot.requests] == ["of another", "first", "second"]


@BOTH
async def test_stopped_it_answers_what_was_asked_and_takes_nothing_more(
    kind: type[Any], transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    gate = Gate()
    async with edge(interface := kind(), gate, transfer, tmp_path) as stopping:
        asking = asyncio.create_task(interface.on_request_async(said(kind, "slow"), "ada"))
        await until(lambda: gate.started == ["slow"], "the turn runs")
        stopping.stop()
        await until(lambda: stopping._runner._is_closed, "it takes no more")
        with pytest.raises(BrokerUnavailable, match="this edge is stopping"):
            await interface.on_request_async(said(kind, "late"), "bob")
        gate.open("slow")
        assert (await asking).last_response.text == "noted slow"
    assert stopping.unanswered == 0


@BOTH
async def test_what_is_not_answered_by_the_end_of_the_drain_timeout_is_counted(
    kind: type[Any], transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    gate = Gate()
    async with edge(interface := kind(), gate, transfer, tmp_path, drain_timeout=0.1) as stopping:
        asking = asyncio.create_task(interface.on_request_async(said(kind, "slow"), "ada"))
        await until(lambda: gate.started == ["slow"], "the turn runs")
    assert stopping.unanswered == 1
    asking.cancel()


async def test_an_answer_that_does_not_come_in_time_is_told(transfer: AttachmentTransfer, tmp_path: Path) -> None:
    async with edge(interface := Ours(), Gate(), transfer, tmp_path, timeout=0.2):
        with pytest.raises(AskTimeout, match=r"within 0.2 s"):
            await interface.on_request_async(Message("slow"), "ada")


@BOTH
async def test_an_interface_whose_connect_lasts_is_cancelled_at_the_end(
    kind: type[Any], bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    ended: list[str] = []

    class Lasting(kind):
        async def connect(self, pipeline_runner: Any) -> None:
            await super().connect(pipeline_runner)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

    async with edge(interface := Lasting(), bot, transfer, tmp_path):
        assert (await interface.on_request_async(said(kind, "hi"), "ada")).last_response.text == "answer"
    assert ended == ["ended"]


async def test_an_answer_that_is_still_being_sent_at_the_end_counts_as_cut_short(
    bot: Bot, transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    sending, may_send = threading.Event(), threading.Event()

    class Slow(PollingMessengerInterface):
        def __init__(self) -> None:
            super().__init__()
            self._pipeline_runner = True

        def _request(self) -> Updates:
            return [(Message("hi"), "ada")]

        def _respond(self, responses: list[Context]) -> None:
            sending.set()
            may_send.wait()

    async with edge(Slow(), bot, transfer, tmp_path, drain_timeout=0.1) as stopping:
        await until(sending.is_set, "an answer is being sent")
    assert (stopping.was_cut_short, stopping.unanswered) == (True, 0)
    may_send.set()
