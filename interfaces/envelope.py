"""Wire contract v1: requests and replies between Python objects and the bytes and properties of a broker message.

Whatever is wrong with a request is found here and raised as `RequestRejected` with its reason; nothing unchecked gets
past `decode_request`. A reply is encoded once and published as those bytes, however often it is repeated.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.data_model import json_object
from interfaces.errors import MisuseError, Reason, RequestRejected
from interfaces.messages import Message
from interfaces.topology import Topology, slot
from interfaces.unsafe import refuse_unsafe

VERSION: Final = 1
JSON: Final = "application/json"
PERSISTENT: Final = 2
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_CTX_ID_BYTES: Final = 200
"""With an interface name of 50 and a dot it still fits AMQP's routing key of 255 bytes."""
MAX_MESSAGE_ID_BYTES: Final = 255
"""What AMQP's short strings hold."""
INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
DEFAULT_INTERFACE: Final = "default"
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"
SERVER_NAMED: Final = "amq.gen-"
REPLY_IDS: Final = UUID("5c4f1c0e-6b0b-5d9e-9a7e-0f3d6a1b2c4d")
"""Namespace of the name-based UUIDs (RFC 9562, version 5) that identify replies."""


class RequestBody(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid", title="Switchboard request, version 1")

    version: Literal[1] = 1
    ctx_id: str = Field(min_length=1, max_length=MAX_CTX_ID_BYTES, description="Context id, 1-200 bytes of UTF-8.")
    message: Message
    update_ctx_misc: dict[str, Any] | None = Field(default=None, description="Merged into the context's misc first.")


class ReplyError(BaseModel):
    """Why a request got no answer."""

    code: str = Field(description="One of the dead-letter reasons.")
    detail: str


class Reply(BaseModel):
    """Body of a reply."""

    model_config = ConfigDict(title="Switchboard reply, version 1")

    version: Literal[1] = 1
    ctx_id: str | None = Field(description="Null where the request was too broken to tell.")
    request_id: str | None = Field(description="The request's message_id.")
    turn: int = Field(description="Number of the turn this request became in its context; 0 for an error.")
    status: Literal["ok", "error"]
    message: Message | None = None
    misc: dict[str, Any] | None = None
    error: ReplyError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request, checked."""

    ctx_id: str
    request_id: str
    message: Message
    update_ctx_misc: dict[str, Any] | None
    delivery: Delivery


def context_id(ctx_id: object) -> str:
    """A context id of the API (any hashable) as the text that travels: `str(ctx_id)`, so 1 and "1" are one dialog.

    Raises `MisuseError` where the text is empty, longer than 200 bytes of UTF-8, or no valid Unicode.
    """
    text = str(ctx_id)
    fault = _ctx_id_fault(text)
    if fault is not None:
        raise MisuseError(f"context id {text[:50]!r}: {fault}")
    return text


def encode_request(
    topology: Topology,
    message: Message,
    ctx_id: str,
    *,
    request_id: str,
    update_ctx_misc: dict[str, Any] | None = None,
    reply_to: str | None = None,
) -> Outgoing:
    """A request ready to publish. Raises `MisuseError` where no worker would accept it."""
    if not 1 <= len(request_id.encode()) <= MAX_MESSAGE_ID_BYTES:
        raise MisuseError(f"request id {request_id[:50]!r}: it must have 1 to {MAX_MESSAGE_ID_BYTES} bytes of UTF-8")
    fields: dict[str, Any] = {"version": VERSION, "ctx_id": ctx_id}
    try:
        fields["message"] = message.model_dump(mode="json")
        if update_ctx_misc:
            fields["update_ctx_misc"] = json_object(update_ctx_misc)
        body = to_json(fields)
        decode_body(body)
    except RequestRejected as error:
        raise MisuseError(f"this message cannot travel: {error.detail}") from error
    except ValueError as error:
        raise MisuseError(f"this message cannot travel: {error}") from error
    properties = Properties(
        content_type=JSON,
        delivery_mode=PERSISTENT,
        message_id=request_id,
        correlation_id=request_id,
        reply_to=reply_to,
        timestamp=datetime.now(UTC).replace(microsecond=0),
    )
    return Outgoing(topology.requests_exchange, str(slot(ctx_id)), body, properties)


def decode_request(delivery: Delivery, topology: Topology) -> Request:
    """Check a delivery against the contract. Raises `RequestRejected`."""
    properties = delivery.properties
    if not properties.message_id:
        raise RequestRejected(
            Reason.BAD_MESSAGE_ID, "message_id is missing: without it a request cannot be deduplicated"
        )
    if not _is_unicode(properties.message_id):
        raise RequestRejected(Reason.BAD_MESSAGE_ID, "message_id is not UTF-8")
    if properties.reply_to and not may_reply_to(properties.reply_to, topology):
        raise RequestRejected(
            Reason.BAD_REPLY_TO,
            f"reply_to must be {DIRECT_REPLY!r}, a server-named queue, or begin with {topology.reply_prefix!r}",
        )
    if properties.content_encoding:
        raise RequestRejected(Reason.BAD_ENCODING, f"content_encoding {properties.content_encoding!r}: send it plain")
    if properties.content_type and properties.content_type.split(";")[0].strip().lower() != JSON:
        raise RequestRejected(Reason.BAD_CONTENT_TYPE, f"content_type {properties.content_type!r} is not {JSON}")
    body = decode_body(delivery.body)
    if delivery.routing_key != str(slot(body.ctx_id)):
        raise RequestRejected(
            Reason.MISROUTED,
            f"routing key {delivery.routing_key!r}: the slot of this ctx_id is {slot(body.ctx_id)} (CRC-32 mod 1024)",
        )
    return Request(body.ctx_id, properties.message_id, body.message, body.update_ctx_misc, delivery)


def decode_body(body: bytes) -> RequestBody:
    """Parse and check a request body alone. Raises `RequestRejected`."""
    raw = _parse(body)
    if not isinstance(raw, dict):
        raise RequestRejected(Reason.BAD_SHAPE, "the body must be a JSON object")
    version = raw.get("version")
    if version != VERSION or isinstance(version, bool):
        raise RequestRejected(Reason.BAD_VERSION, f"version must be {VERSION}")
    refuse_unsafe(raw.get("message"), raw.get("update_ctx_misc"))
    ctx_id = raw.get("ctx_id")
    # Before the model looks, which would tell an id of too many characters from one of too many bytes.
    if isinstance(ctx_id, str) and (fault := _ctx_id_fault(ctx_id)) is not None:
        raise RequestRejected(Reason.BAD_CONTEXT_ID, f"ctx_id: {fault}")
    try:
        request = RequestBody.model_validate(raw)
    except ValidationError as error:
        raise RequestRejected(Reason.BAD_SHAPE, first_fault(error)) from error
    interface = request.message.origin.interface if request.message.origin else None
    if interface is not None and not INTERFACE_NAME.fullmatch(interface):
        raise RequestRejected(Reason.BAD_SHAPE, "message.origin.interface must be 1-50 characters of A-Z a-z 0-9 _ -")
    return request


def _parse(body: bytes) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise RequestRejected(Reason.BODY_TOO_LARGE, f"the body has {len(body)} bytes, the limit is {MAX_BODY_BYTES}")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise RequestRejected(
            Reason.BAD_ENCODING, f"the body is not UTF-8: byte {error.start} {error.reason}"
        ) from error
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # The parser stops at a depth of about 200 rather than exhaust the stack.
        reason = Reason.TOO_DEEP if "recursion limit" in str(error) else Reason.BAD_JSON
        raise RequestRejected(reason, str(error)) from error


def first_fault(error: ValidationError) -> str:
    """The first thing wrong, with where it is, as one line that repeats none of the input."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in faults[0]["loc"]) or "body"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {faults[0]['msg']}{more}"


def _is_unicode(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _ctx_id_fault(ctx_id: str) -> str | None:
    if not _is_unicode(ctx_id):
        return "not valid Unicode text"
    size = len(ctx_id.encode())
    return None if 1 <= size <= MAX_CTX_ID_BYTES else f"{size} bytes of UTF-8, allowed are 1 to {MAX_CTX_ID_BYTES}"


def may_reply_to(reply_to: str, topology: Topology) -> bool:
    """Whether the contract allows writing into this queue: a stranger must not make a worker write into any other."""
    return reply_to.startswith((DIRECT_REPLY, SERVER_NAMED, topology.reply_prefix))


def reply_id(ctx_id: str | None, request_id: str | None) -> str:
    """`message_id` of the reply, the same on every redelivery.

    Derived from both ids: should two contexts use one request id, their replies still differ, and the client library
    never has one id in flight twice, which would mix up their returns.
    """
    return str(uuid5(REPLY_IDS, f"{ctx_id}\0{request_id}"))


def encode_reply(request: Request, response: Message | None, misc: dict[str, Any], turn: int) -> bytes:
    """Body of the reply to `request`. Raises `RequestRejected(reply-invalid)` where it cannot travel."""
    try:
        message = None if response is None else response.model_dump(mode="json")
        refuse_unsafe(message)
        body = _reply_body(request.ctx_id, request.request_id, turn, "ok", message)
        encoded = to_json(body | {"misc": json_object(misc)} if misc else body)
    except RequestRejected as error:
        raise RequestRejected(Reason.REPLY_INVALID, "the bot's answer cannot be sent", internal=error.detail) from error
    except ValueError as error:
        raise RequestRejected(Reason.REPLY_INVALID, "the bot's answer cannot be sent", internal=str(error)) from error
    if len(encoded) > MAX_BODY_BYTES:
        internal = f"the reply has {len(encoded)} bytes, the limit is {MAX_BODY_BYTES}"
        raise RequestRejected(Reason.REPLY_INVALID, "the bot's answer is too large", internal=internal)
    return encoded


def encode_error_reply(ctx_id: str | None, request_id: str | None, rejected: RequestRejected) -> bytes:
    """Body of the reply that says why a request got no answer."""
    body = _reply_body(ctx_id, request_id, 0, "error", None)
    return to_json(body | {"error": {"code": rejected.reason.value, "detail": rejected.detail}})


def _reply_body(
    ctx_id: str | None,
    request_id: str | None,
    turn: int,
    status: Literal["ok", "error"],
    message: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "ctx_id": ctx_id,
        "request_id": request_id,
        "turn": turn,
        "status": status,
        "message": message,
    }


def reply_outgoing(
    topology: Topology, delivery: Delivery, ctx_id: str | None, body: bytes, interface: str = DEFAULT_INTERFACE
) -> Outgoing:
    """A reply ready to publish, to the request's `reply_to` or else to the replies exchange."""
    asked = delivery.properties
    properties = Properties(
        content_type=JSON,
        delivery_mode=PERSISTENT,
        message_id=reply_id(ctx_id, asked.message_id),
        correlation_id=asked.correlation_id or asked.message_id,
    )
    if asked.reply_to:
        # RabbitMQ returns every mandatory message to the direct-reply pseudo-queue, the delivered ones too
        # (https://www.rabbitmq.com/docs/direct-reply-to#limitations).
        mandatory = not asked.reply_to.startswith(DIRECT_REPLY)
        return Outgoing("", asked.reply_to, body, properties, mandatory)
    return Outgoing(topology.replies_exchange, f"{interface}.{ctx_id}", body, properties)


def interface_of(message: Message) -> str:
    """Name of the interface a request came through, the first word of its reply's routing key."""
    origin = message.origin
    return (origin.interface if origin else None) or DEFAULT_INTERFACE


def decode_reply(body: bytes) -> Reply:
    """Parse a reply body. Raises `ValueError` where it is not one, or unsafe."""
    raw = from_json(body, allow_inf_nan=False)
    if isinstance(raw, dict):
        refuse_unsafe(raw.get("message"), raw.get("misc"))
    return Reply.model_validate(raw)
