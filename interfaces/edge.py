"""The edge: any messenger interface written on the seed's API, ours or Chatsky's, in front of the broker.

An interface is written to hold a pipeline in its own process. Here the pipeline runner it gets asks the broker instead,
and what is around the interface takes away what a single process may do and a service must not: end with the first
failed poll, hold up all chats for one, keep running when told to stop. Called by `switchboard edge`.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Collection, Coroutine, Hashable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from interfaces import messages, telegram, telegram_files
from interfaces.attachment_requests import AttachmentRequests, Give
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.envelope import INTERFACE_NAME, context_id
from interfaces.errors import BrokerUnavailable, MisuseError
from interfaces.messages import CallbackQuery, DataModel, Message, Origin
from interfaces.polling_edge import poll
from interfaces.references import Reference
from interfaces.supported_attachments import Neglected, keep_supported
from interfaces.turnstiles import Turnstiles

logger = logging.getLogger(__name__)

MAX_NAME: Final = 50

SENDING_SECONDS: Final = 0.5
"""How long an interface that waits to be called has, once its last call is answered, to send that answer on."""


def edge_name(interface: Any, name: str | None = None) -> str:
    """The name an interface's messages travel under: `name`, or else the interface's own `id` without the characters
    that a routing key must not have. Raises `MisuseError` for a `name` that has some."""
    if name is not None:
        if not INTERFACE_NAME.fullmatch(name):
            raise MisuseError(f"the name of an interface must be 1-{MAX_NAME} of A-Z a-z 0-9 _ -, not {name!r}")
        return name
    own = str(getattr(interface, "id", None) or type(interface).__name__)
    return re.sub(r"[^A-Za-z0-9_-]", "-", own)[:MAX_NAME]


class EdgeRunner:
    """The pipeline runner that an interface at the edge gets: asks the broker, and gives the reply as a context.

    Takes messages of both libraries and answers each in its own. Turns of one context run in the order they were asked
    for, those of different ones side by side.

    :param name: the source of the messages, whatever the interface itself says.
    :param transfer: brings local files into the attachment store, and from there into the interface's directory.
    """

    def __init__(self, client: BrokerClient, interface: Any, name: str, transfer: AttachmentTransfer) -> None:
        self._client = client
        self._name = name
        self._transfer = transfer
        self._requested = _supported(interface, "request")
        self._responded = _supported(interface, "response")
        if self._requested is not None:
            # No file but an event. Chatsky's Telegram interfaces make them, and do not name them in their set.
            self._requested.append(CallbackQuery)
        self._turnstiles = Turnstiles()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.running = 0
        """Turns asked for and not answered yet."""
        self.neglected = Neglected(name)

    async def __call__(
        self, message: Any, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Any:
        """Ask, and give a context with the answer. Raises what `BrokerClient` raises, and `BrokerUnavailable` once
        stopped."""
        if self._is_closed:
            raise BrokerUnavailable("this edge is stopping and takes no more messages")
        text = context_id(ctx_id if ctx_id is not None else uuid4())
        self.running += 1
        self._idle.clear()
        try:
            async with self._turnstiles.turn(text):
                return await self._ask(message, text, update_ctx_misc)
        finally:
            self.running -= 1
            if self.running == 0:
                self._idle.set()

    def close(self) -> None:
        """Take no more turns."""
        self._is_closed = True

    async def wait_idle(self) -> None:
        """Return when every turn asked for is answered."""
        await self._idle.wait()

    async def _ask(self, message: Any, ctx_id: str, update_ctx_misc: dict[str, Any] | None) -> Any:
        request = self._kept(_ours(message), self._requested, "receive")
        origin = (request.origin or Origin()).model_copy(update={"interface": self._name})
        request = await self._transfer.upload(request.model_copy(update={"origin": origin}))
        context = await self._client(request, ctx_id, update_ctx_misc)
        turn = context.current_turn_id
        if (response := context.responses.get(turn)) is not None:
            context.responses[turn] = await self._transfer.localize(self._kept(response, self._responded, "send"))
        return context if isinstance(message, Message | str) else _theirs(context, message)

    def _kept(self, message: Message, types: Collection[type] | None, action: str) -> Message:
        if types is None:
            return message
        message, kinds = keep_supported(message, types)
        self.neglected.note(kinds, action)
        return message


def _supported(interface: Any, direction: str) -> list[type] | None:
    """Our own types of attachment that the interface takes; `None` for one that does not deal with attachments."""
    if not callable(getattr(interface, "get_attachment_bytes", None)):
        return None
    theirs = getattr(interface, f"supported_{direction}_attachment_types")
    # Chatsky's have the names of ours.
    return [kind if issubclass(kind, DataModel) else getattr(messages, kind.__name__, kind) for kind in theirs]


def _ours(message: Any) -> Message:
    if isinstance(message, Message):
        return message
    if isinstance(message, str):
        return Message(message)
    from interfaces import bridge  # Chatsky is there where one of its messages is; without it, nobody needs the bridge.

    return bridge.from_chatsky(message)


def _theirs(context: Context, request: Any) -> Any:
    from interfaces import bridge  # as above

    context.requests.clear()
    theirs = bridge.to_chatsky_context(context)
    # The very message: it holds what did not travel, such as the messenger's own object in `origin`.
    theirs.requests[context.current_turn_id] = request
    return theirs


Drive = Callable[[Any, EdgeRunner, asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]
"""Connects an interface and returns when its input has ended, or once told to stop, with what was taken answered."""


def _drive_of(interface: Any) -> Drive:
    if not callable(getattr(interface, "connect", None)):
        raise MisuseError(
            f"{type(interface).__name__} is no messenger interface: it has no `connect(pipeline_runner)`. "
            "Name an instance, a class or a function without parameters that gives one"
        )
    if telegram.is_telegram(interface):
        return telegram.serve
    return poll if callable(getattr(interface, "_polling_loop", None)) else _wait_for_calls


async def _wait_for_calls(
    interface: Any, runner: EdgeRunner, stopping: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Connect an interface that is called by others, by a web framework for example, and stay until told to stop."""
    connecting = asyncio.create_task(interface.connect(runner), name="connect")
    stopped = asyncio.create_task(stopping.wait(), name="await the stop")
    ready()
    try:
        await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()
        await stopped
        runner.close()
        if runner.running:
            await runner.wait_idle()
            await asyncio.sleep(SENDING_SECONDS)
    finally:
        stopped.cancel()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


def giver_of(interface: Any, transfer: AttachmentTransfer) -> Give | None:
    """Gets an attachment into the store by the messenger's id; `None` where the interface has no attachments."""
    fetch = getattr(interface, "get_attachment_bytes", None)
    if not callable(fetch):
        return None
    if telegram.is_telegram(interface) and telegram_files.can_stream(interface):
        return partial(telegram_files.keep_file, interface, transfer)

    async def give(attachment_id: str) -> Reference:
        return await transfer.keep(await fetch(attachment_id))

    return give


class Edge:
    """One interface, connected to the broker for as long as it is wanted.

    :param client: open; its time limit is a turn's.
    :param requests: serves attachments that only this interface can fetch, for as long as the edge runs.
    :param drain_timeout: seconds that turns asked for have to be answered after `stop`.

    Raises `MisuseError` for what is no messenger interface.
    """

    def __init__(
        self,
        interface: Any,
        client: BrokerClient,
        transfer: AttachmentTransfer,
        *,
        name: str | None = None,
        requests: AttachmentRequests | None = None,
        drain_timeout: float = 20.0,
    ) -> None:
        self.name = edge_name(interface, name)
        self._interface = interface
        self._drive = _drive_of(interface)
        if "chatsky" in sys.modules:  # Without it, the interface is none of Chatsky's.
            from interfaces.chatsky_downloads import download_by

            download_by(interface, transfer.fetch_url)
        self._runner = EdgeRunner(client, interface, self.name, transfer)
        self._transfer = transfer
        self._requests = requests
        self._drain_timeout = drain_timeout
        self._stopping = asyncio.Event()
        self.unanswered = 0
        """After `run`: turns that were asked for and given up."""
        self.was_cut_short = False
        """After `run`: whether it was told to stop and had not come to its end, so that something may be unanswered."""

    def stop(self) -> None:
        """Take nothing more from users and answer what was taken. Returns at once, may be repeated."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    async def wait_stopping(self) -> None:
        """Return once told to stop."""
        await self._stopping.wait()

    async def run(self) -> None:
        """Until the interface's input ends or `stop`. Cancelled, it gives up at once.

        Raises `Fatal` where the work cannot be done, and what the interface's `connect` raises.
        """
        driving = asyncio.create_task(
            self._drive(self._interface, self._runner, self._stopping, self._tell_ready), name="interface"
        )
        stopped = asyncio.create_task(self._stopping.wait(), name="await the stop")
        tasks = [driving, stopped]
        tasks.append(asyncio.create_task(self._transfer.sweep_regularly(), name="sweep attachments"))
        if self._requests is not None:
            tasks.append(asyncio.create_task(self._requests.run(), name="attachment requests"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopped in done:
                # Attachments are still served: workers may need them for the very turns that are waited for.
                done, _ = await asyncio.wait(
                    {driving, *tasks[2:]}, timeout=self._drain_timeout, return_when=asyncio.FIRST_COMPLETED
                )
            for task in done - {stopped}:
                task.result()
        finally:
            self.unanswered = self._runner.running
            # An answer that is on its way from here to its user is no running turn any more.
            self.was_cut_short = self.is_stopping and not driving.done()
            self._runner.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tell_ready(self) -> None:
        logger.info("edge ready: %s takes messages as %r", type(self._interface).__name__, self.name)
