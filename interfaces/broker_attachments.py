"""Attachments of the interface on the broker: which types pass, where a bot's files go, whom to ask for bytes.

Bytes never travel in a queue. A reference is read from the attachment store; any other id belongs to a messenger, and
only the edge that the message came through can resolve it. URLs come from users and are fetched from allowed hosts
only. One half of `RabbitMQMessengerInterface`.
"""

import logging
import tempfile
from abc import ABC
from collections.abc import Collection
from contextvars import ContextVar
from pathlib import Path
from typing import ClassVar, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_requests import EdgeResolver
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.brokers import Broker
from interfaces.brokers.memory import MemoryBroker
from interfaces.envelope import Request
from interfaces.errors import AttachmentError, AttachmentMissing, AttachmentStoreUnavailable, Reason, RequestRejected
from interfaces.messages import DataModel, Message
from interfaces.messengers import MessengerInterfaceWithAttachments
from interfaces.references import Reference
from interfaces.supported_attachments import Neglected, keep_supported
from interfaces.topology import Topology
from interfaces.unsafe import URL_SCHEMES

logger = logging.getLogger(__name__)

CACHE_BYTES: Final = 256 * 1024 * 1024
MAX_BYTES: Final = 20 * 1024 * 1024
TTL_SECONDS: Final = 7 * 24 * 3600
"""As the settings' `attachments_cache_bytes`, `..._max_bytes` and `..._ttl`, for an interface made without them."""

STORE_WAIT = wait_random_exponential(multiplier=0.1, max=5)

_came_through: ContextVar[str | None] = ContextVar("came_through", default=None)
"""Name of the interface that the message of the running turn came through. `get_attachment_bytes` is given an id alone,
so the name must be found by the task that asks, whichever of the bot's tasks that is."""


class BrokerAttachments(MessengerInterfaceWithAttachments, ABC):
    """The attachments half of an interface on a broker.

    :param transfer: the way to the attachment store; where not given, a store in this process, cached in
        `attachments_directory`.
    """

    supported_request_attachment_types: ClassVar[set[type[DataModel]]] = {DataModel}
    """Everything: a broker carries what it need not know."""
    supported_response_attachment_types: ClassVar[set[type[DataModel]]] = {DataModel}

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        attachments_directory: Path | None = None,
        transfer: AttachmentTransfer | None = None,
    ) -> None:
        super().__init__(attachments_directory if transfer is None else transfer.cache.directory)
        self.neglected = Neglected(self.id)
        is_embedded = isinstance(broker, MemoryBroker)
        self._transfer = transfer or _own_transfer(self.attachments_directory, is_embedded=is_embedded)
        self._resolver = EdgeResolver(broker, topology)

    def received(self, message: Message) -> Message:
        """`message` of a request with the attachments that are supported; others are counted and logged."""
        return self._kept(message, self.supported_request_attachment_types, "receive")

    async def sent(self, message: Message) -> Message:
        """`message` of a reply with the attachments that are supported, local files among them in the store.

        Waits while the store is away. Raises `RequestRejected(reply-invalid)` for a file that cannot be sent.
        """
        message = self._kept(message, self.supported_response_attachment_types, "send")
        if not message.attachments:
            return message
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(AttachmentStoreUnavailable), wait=STORE_WAIT, before_sleep=_log_outage
        )
        try:
            return await retrying(self._transfer.upload, message)
        except AttachmentError as error:
            detail = "an attachment of the bot's answer cannot be sent"
            raise RequestRejected(Reason.REPLY_INVALID, detail, internal=str(error)) from error

    async def get_attachment_bytes(self, source: str) -> bytes:
        """The bytes behind an attachment's id, from the store or by the edge that its message came through, or behind a
        URL where the allow list has its host.

        Raises `AttachmentError` where they cannot be had, `EdgeUnavailable` or `AttachmentStoreUnavailable` where they
        cannot be had now.
        """
        if source.lower().startswith(URL_SCHEMES):
            return await self._transfer.fetch_url(source)
        reference = Reference.parse(source)
        if reference is None:
            reference = await self._resolver.resolve(self._edge_of(source), source)
        return await self._transfer.fetch(reference)

    def _begin_turn(self, request: Request) -> None:
        """Note for the running task, and those it starts, which edge knows the ids in this request."""
        origin = request.message.origin
        _came_through.set(origin.interface if origin else None)

    async def _close_attachments(self) -> None:
        await self._resolver.close()

    def _edge_of(self, source: str) -> str:
        interface = _came_through.get()
        if interface is None:
            raise AttachmentMissing(
                f"attachment {source[:60]!r} is no reference to stored bytes, and nobody can be asked for it: its "
                "message says no `origin.interface`, or no turn is running"
            )
        return interface

    def _kept(self, message: Message, types: Collection[type], action: str) -> Message:
        if message.attachments:
            message, dropped = keep_supported(message, types)
            self.neglected.note(dropped, action)
        return message


def _own_transfer(directory: Path, *, is_embedded: bool) -> AttachmentTransfer:
    """For an interface that was given none: a store in this process, which will do where the broker is here too."""
    if directory == Path(tempfile.gettempdir()):
        directory /= "switchboard-attachments"
    store = AttachmentStore("memory://", max_bytes=MAX_BYTES, ttl=TTL_SECONDS)
    return AttachmentTransfer(
        store, AttachmentCache(directory, max_bytes=CACHE_BYTES), across_processes=not is_embedded
    )


def _log_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("attachment store unavailable (attempt %d), trying again: %s", state.attempt_number, error)
