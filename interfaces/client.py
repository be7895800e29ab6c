"""The upstream side: sends requests to the broker and gets their replies. Safe for many concurrent calls.

Requests of one context reach the broker in the order they were sent: a context's next request is published only after
the one before is confirmed or given up. A publish without a confirm is repeated with the same id, which workers
deduplicate; and so is a request whose reply can no longer come, because the node with the queue for it was lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from interfaces.brokers import Broker, Delivery, Outgoing
from interfaces.brokers.opening import open_broker
from interfaces.context import Context
from interfaces.encryption import Keys
from interfaces.envelope import context_id, encode_request
from interfaces.errors import AskTimeout, QueueStranded, RequestFailed
from interfaces.inbox import Inbox
from interfaces.messages import Message, Origin
from interfaces.ordered_publishing import OrderedPublisher
from interfaces.replies import Replies, read_reply
from interfaces.reply_bodies import DEFAULT_INTERFACE, Reply
from interfaces.telemetry import Telemetry
from interfaces.topology import Topology

if TYPE_CHECKING:
    from interfaces.tracing import Tracing


class BrokerClient:
    """A connection of an upstream service to its bots.

    It is a pipeline runner: `await any_interface.connect(client)` puts any interface in front of the broker. Use it as
    `async with BrokerClient(url) as client`.

    :param url: `amqp://`, `amqps://` (nodes of a cluster separated by commas), or `memory://` inside this process.
    :param interface: name of this source of messages; replies of `send` travel under it.
    :param timeout: seconds a call may take where it gives no time of its own.
    :param keys: encrypt requests and decrypt replies; in plain where not given.
    :param tracing: `interfaces.tracing.Tracing`, where what is sent and received is to be traced.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        namespace: str = "switchboard",
        interface: str | None = None,
        broker: Broker | None = None,
        timeout: float = 30.0,
        keys: Keys | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._topology = Topology(namespace=namespace)
        self._interface = interface
        self._broker = broker or open_broker(url, telemetry=Telemetry(tracing))
        self._timeout = timeout
        self._keys = keys
        self._tracing = tracing
        self._inbox = Inbox(self._broker, self._topology, interface or DEFAULT_INTERFACE, self._read)
        self._publisher = OrderedPublisher(self._broker)

    async def open(self) -> None:
        """Connect. Raises `BrokerRefused` or `BrokerUnavailable`."""
        await self._broker.open()

    async def close(self) -> None:
        """Close the connection and drop the reply queue. Calls that still wait for a reply fail."""
        await self._inbox.close("the client was closed")
        await self._broker.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        message: Message | str,
        ctx_id: Hashable,
        *,
        request_id: str | None = None,
        update_ctx_misc: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> str:
        """Publish a request and return its id once the broker has it safe. Its reply goes to `replies()`.

        Raises `BrokerUnavailable` where that took longer than `timeout` seconds (whether it arrived is then unknown:
        send again with the same `request_id`), `Unroutable` where no topology is declared, `MisuseError` for a message
        that cannot travel.
        """
        request_id = request_id or str(uuid4())
        text = context_id(ctx_id)
        request = self._encoded(message, text, request_id, update_ctx_misc)
        await self._publish(request, text, self._timeout if timeout is None else timeout)
        return request_id

    async def ask(
        self,
        message: Message | str,
        ctx_id: Hashable,
        *,
        request_id: str | None = None,
        update_ctx_misc: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Publish a request and wait for its reply, whose `status` may be "error".

        Raises `AskTimeout` where no reply came within `timeout` seconds; the request may still be answered: ask again
        with the same `request_id`. Otherwise raises as `send`.
        """
        request_id, text = request_id or str(uuid4()), context_id(ctx_id)
        seconds = self._timeout if timeout is None else timeout
        deadline = asyncio.get_running_loop().time() + seconds
        request = self._encoded(message, text, request_id, update_ctx_misc)
        while True:
            try:
                return await self._ask_once(request, request_id, text, deadline)
            except QueueStranded:
                continue  # The queue that the reply goes to is on a lost node: ask again, into another one.
            except TimeoutError as error:
                raise AskTimeout(
                    f"no reply to request {request_id!r} of context {text!r} within {seconds:g} s: the broker has it, "
                    f"but no worker of namespace {self._topology.namespace!r} answered"
                ) from error

    async def _ask_once(self, request: Outgoing, request_id: str, ctx_id: str, deadline: float) -> Reply:
        # Several calls may ask under one id; the first reply answers them all.
        with self._inbox.waiting(request_id) as reply:
            # Read only now: whoever waits is told when the queue changes.
            request = replace(request, properties=replace(request.properties, reply_to=self._inbox.queue))
            # Listening is made sure of in this request's turn: before it, a later `send` could overtake.
            seconds = deadline - asyncio.get_running_loop().time()
            await self._publish(request, ctx_id, seconds, first=self._inbox.listen)
            async with asyncio.timeout_at(deadline):
                return await reply

    def replies(self, queue: str | None = None, *, interface: str | None = None) -> Replies:
        """Replies to requests that were sent without asking, as an async iterator.

        Every `replies()` gets all replies of the interface from the moment it is open: use `async with` to have it open
        before the first `send`. With a `queue` name they are kept while nobody listens (for a week), and shared by all
        who listen under that name. A reply counts as taken when the next one is asked for; until then it may come
        again.
        """
        return Replies(self._broker, self._topology, queue, interface or self._interface, self._keys, self._tracing)

    async def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        """Ask, and give the reply as a context, as a pipeline runner does. Raises `RequestFailed` for an error
        reply."""
        text = context_id(ctx_id if ctx_id is not None else uuid4())
        reply = await self.ask(message, text, update_ctx_misc=update_ctx_misc)
        if reply.error is not None:
            raise RequestFailed(reply.error.code, reply.error.detail)
        return Context(
            id=text,
            current_turn_id=reply.turn,
            requests={reply.turn: message},
            responses={} if reply.message is None else {reply.turn: reply.message},
            misc=reply.misc or {},
        )

    async def _publish(
        self, request: Outgoing, ctx_id: str, seconds: float, *, first: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        if self._tracing is None:
            await self._publisher.publish(request, ctx_id, seconds, first=first)
        else:
            with self._tracing.sending(request) as traced:
                await self._publisher.publish(traced, ctx_id, seconds, first=first)

    def _encoded(
        self, message: Message | str, ctx_id: str, request_id: str, update_ctx_misc: dict[str, Any] | None
    ) -> Outgoing:
        return encode_request(
            self._topology,
            self._signed(message),
            ctx_id,
            request_id=request_id,
            update_ctx_misc=update_ctx_misc,
            keys=self._keys,
        )

    def _read(self, delivery: Delivery) -> tuple[str, Reply] | None:
        reply = read_reply(delivery, self._keys, self._tracing)
        return None if reply is None else (reply.request_id or "", reply)

    def _signed(self, message: Message | str) -> Message:
        message = Message(message) if isinstance(message, str) else message
        if self._interface is None or (message.origin and message.origin.interface):
            return message
        origin = message.origin.model_copy(update={"interface": self._interface}) if message.origin else None
        return message.model_copy(update={"origin": origin or Origin(interface=self._interface)})
