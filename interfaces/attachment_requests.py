"""Workers ask an edge for the bytes behind an attachment id that only this edge can fetch, a Telegram file id say.

The bytes never travel in a queue: the edge puts them into the attachment store and answers with the reference. Wire
contract v1, "Attachments". All edges of one name share a queue, which goes after an hour without any of them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay

from interfaces.brokers import Broker, Delivery, Outgoing, Properties
from interfaces.consumers import KeptConsumer
from interfaces.envelope import JSON, VERSION, first_fault, may_reply_to
from interfaces.errors import (
    AttachmentError,
    AttachmentMissing,
    AttachmentReferenceInvalid,
    AttachmentStoreUnavailable,
    AttachmentTooLarge,
    BrokerUnavailable,
    EdgeUnavailable,
    SwitchboardError,
    Unroutable,
)
from interfaces.inbox import Inbox
from interfaces.references import Reference
from interfaces.settling import OUTAGE_WAIT
from interfaces.topology import Topology

logger = logging.getLogger(__name__)

QUEUE_LIFE: Final = timedelta(hours=1)
"""How long requests may wait for an edge of that name to come back; each expires earlier, with its asker's patience."""

AT_A_TIME: Final = 2
"""Attachments an edge fetches at a time: each is in its memory as a whole, at times more than once."""

GIVE_SECONDS: Final = 120.0
"""After which an interface that does not come back with the bytes is given up, and its place is free again."""

ANSWER_SECONDS: Final = 30.0
"""For an answer to reach the broker; whoever asked has given up by then."""

MAX_ID_CHARACTERS: Final = 4096

Give = Callable[[str], Awaitable[Reference]]
"""Fetches an attachment by its id and puts it into the attachment store. Raises `AttachmentError` or
`AttachmentStoreUnavailable` where it cannot be kept, anything else where it cannot be fetched."""


class AttachmentRequest(BaseModel):
    """Body of a worker's request to an edge."""

    model_config = ConfigDict(hide_input_in_errors=True, title="Switchboard attachment request, version 1")

    version: Literal[1] = VERSION
    id: str = Field(min_length=1, max_length=MAX_ID_CHARACTERS, description="The attachment's `id`.")


FaultCode = Literal["bad-request", "not-fetched", "too-large", "not-kept"]

FAULTS: Final[Mapping[FaultCode, type[SwitchboardError]]] = {
    "bad-request": AttachmentMissing,
    "not-fetched": AttachmentMissing,
    "too-large": AttachmentTooLarge,
    "not-kept": AttachmentStoreUnavailable,
}
"""What is raised in the worker for each."""


class AttachmentFault(BaseModel):
    """Why there is no reference."""

    code: FaultCode
    detail: str


class AttachmentAnswer(BaseModel):
    """Body of an edge's answer: a reference into the attachment store, or an error."""

    model_config = ConfigDict(hide_input_in_errors=True, title="Switchboard attachment answer, version 1")

    version: Literal[1] = VERSION
    id: str | None = None
    reference: str | None = None
    size: int | None = Field(default=None, ge=0, description="In bytes.")
    error: AttachmentFault | None = None


class AttachmentRequests:
    """The edge's side: fetches what is asked for, keeps it in the store, answers.

    :param interface: the name that the edge's messages travel under.
    """

    def __init__(self, broker: Broker, topology: Topology, interface: str, give: Give) -> None:
        self._broker = broker
        self._topology = topology
        self._queue = topology.edge_queue(interface)
        self._give = give
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled; requests that are not answered then go back to the queue. Raises `ConsumerLost`."""
        # Replicated or not, nobody can give this queue another name: where its node is lost, it is waited for.
        kept = KeptConsumer(
            self._broker, self._queue, AT_A_TIME, self._on_request, declare=self._declare, is_replicated=True
        )
        try:
            with suppress(BrokerUnavailable):
                await self._declare()
            await kept.run()
        finally:
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def _declare(self) -> None:
        await self._broker.declare_reply_queue(self._queue, QUEUE_LIFE)

    def _on_request(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._serve(delivery), name="attachment for a worker")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve(self, delivery: Delivery) -> None:
        reply_to = delivery.properties.reply_to
        if reply_to and may_reply_to(reply_to, self._topology):
            answer = await self._answer(delivery.body)
            await self._publish(answer, reply_to, delivery.properties.correlation_id or delivery.properties.message_id)
        else:
            logger.error("a request for an attachment has no queue that it may be answered to: %r", reply_to)
        await delivery.channel.ack(delivery)

    async def _answer(self, body: bytes) -> AttachmentAnswer:
        try:
            request = AttachmentRequest.model_validate_json(body)
        except ValidationError as error:
            return _fault(None, "bad-request", first_fault(error))
        try:
            async with asyncio.timeout(GIVE_SECONDS):
                reference = await self._give(request.id)
        except TimeoutError:
            return _fault(request.id, "not-fetched", f"the messenger did not give it within {GIVE_SECONDS:g} s")
        except AttachmentTooLarge as error:
            return _fault(request.id, "too-large", str(error))
        except (AttachmentError, AttachmentStoreUnavailable) as error:
            logger.error("attachment %r was not kept: %s", request.id, error)
            return _fault(request.id, "not-kept", str(error))
        except Exception as error:
            logger.exception("attachment %r was not fetched", request.id)
            return _fault(request.id, "not-fetched", f"{type(error).__name__}: {error}")
        return AttachmentAnswer(id=request.id, reference=str(reference), size=reference.size)

    async def _publish(self, answer: AttachmentAnswer, reply_to: str, correlation_id: str | None) -> None:
        outgoing = _outgoing(reply_to, answer, Properties(correlation_id=correlation_id))
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(BrokerUnavailable),
            wait=OUTAGE_WAIT,
            stop=stop_after_delay(ANSWER_SECONDS),
            reraise=True,
        )
        try:
            await retrying(self._broker.publish, outgoing)
        except SwitchboardError as error:
            logger.warning("attachment %r was fetched, and whoever asked is gone: %s", answer.id, error)


class EdgeResolver:
    """The worker's side: asks the edge of an interface for what is behind an attachment id.

    :param broker: open; closed by whoever opened it.
    """

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self._broker = broker
        self._topology = topology
        self._inbox: Inbox[AttachmentAnswer] = Inbox(broker, topology, "worker", _read_answer)

    async def resolve(self, interface: str, attachment_id: str, timeout: float = 30.0) -> Reference:
        """The reference to what an edge named `interface` has put into the store for this id.

        Raises `EdgeUnavailable` where none answers within `timeout` seconds, at once where none was there for an hour;
        `AttachmentMissing`, `AttachmentTooLarge` or `AttachmentStoreUnavailable` where the edge cannot give it.
        """
        queue = self._topology.edge_queue(interface)
        request = AttachmentRequest(id=attachment_id)
        properties = Properties(correlation_id=str(uuid4()), expiration=str(max(1, round(timeout * 1000))))
        retrying = AsyncRetrying(retry=retry_if_exception_type(BrokerUnavailable), wait=OUTAGE_WAIT)
        try:
            async with asyncio.timeout(timeout):
                answer: AttachmentAnswer = await retrying(self._ask, _outgoing(queue, request, properties))
        except (TimeoutError, Unroutable) as error:
            raise EdgeUnavailable(
                f"attachment {attachment_id[:60]!r} can be fetched by an edge of {interface!r} alone, and "
                f"{await self._missing(queue, timeout)}: start one with `switchboard edge ... --name {interface}`"
            ) from error
        if answer.error is not None:
            where = f"edge {interface!r}, attachment {attachment_id[:60]!r}"
            raise FAULTS[answer.error.code](f"{where}: {answer.error.detail}")
        reference = Reference.parse(answer.reference or "")
        if reference is None:
            raise AttachmentReferenceInvalid(f"edge {interface!r} answered with {answer.reference!r}, no reference")
        return reference

    async def close(self) -> None:
        """Drop the queue for answers; calls that still wait fail."""
        await self._inbox.close("no more attachments are asked for")

    async def _ask(self, request: Outgoing) -> AttachmentAnswer:
        await self._inbox.listen()
        with self._inbox.waiting(request.properties.correlation_id or "") as answer:
            # Read only now: whoever waits is told when the queue changes.
            properties = replace(request.properties, reply_to=self._inbox.queue)
            await self._broker.publish(replace(request, properties=properties))
            return await answer

    async def _missing(self, queue: str, timeout: float) -> str:
        try:
            state = await self._broker.queue_state(queue)
        except BrokerUnavailable as error:
            return f"none answered within {timeout:g} s ({error})"
        if state is None:
            return f"none has been there for an hour (there is no queue {queue!r})"
        edges = f"{state.consumers} of them" if state.consumers else "none"
        return f"none answered within {timeout:g} s ({edges} on queue {queue!r})"


def _outgoing(queue: str, body: BaseModel, properties: Properties) -> Outgoing:
    properties = replace(properties, content_type=JSON, message_id=str(uuid4()))
    return Outgoing("", queue, body.model_dump_json(exclude_none=True).encode(), properties)


def _fault(attachment_id: str | None, code: FaultCode, detail: str) -> AttachmentAnswer:
    return AttachmentAnswer(id=attachment_id, error=AttachmentFault(code=code, detail=detail[:500]))


def _read_answer(delivery: Delivery) -> tuple[str, AttachmentAnswer] | None:
    try:
        return delivery.properties.correlation_id or "", AttachmentAnswer.model_validate_json(delivery.body)
    except ValidationError as error:
        logger.error(
            "message %r is no answer about an attachment: %s", delivery.properties.message_id, first_fault(error)
        )
        return None
