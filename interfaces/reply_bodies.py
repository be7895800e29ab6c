"""Wire contract v1, replies: between Python objects and the bytes and properties of a broker message.

A reply is encoded once, before the turn is committed, and published as those bytes under the same id, however often it
is repeated.
"""

from hashlib import sha1
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.data_model import json_object
from interfaces.encryption import Keys, require_plain
from interfaces.envelope import DEFAULT_LIMITS, DIRECT_REPLY, JSON, PERSISTENT, VERSION, Request
from interfaces.errors import DecryptionFailed, Reason, RequestRejected
from interfaces.limits import Limits, require_size
from interfaces.messages import Message, message_json
from interfaces.sealed_bodies import Opened, is_sealed, open_reply
from interfaces.topology import Topology
from interfaces.unsafe import refuse_unsafe

DEFAULT_INTERFACE: Final = "default"
REPLY_IDS: Final = UUID("5c4f1c0e-6b0b-5d9e-9a7e-0f3d6a1b2c4d")
"""Namespace of the name-based UUIDs (RFC 9562, version 5) that identify replies."""

_NAMESPACE: Final = REPLY_IDS.bytes


class ReplyError(BaseModel):
    """Why a request got no answer."""

    code: str = Field(description="One of the dead-letter reasons.")
    detail: str


class Reply(BaseModel):
    """Body of a reply."""

    model_config = ConfigDict(hide_input_in_errors=True, title="Switchboard reply, version 1")

    version: Literal[1] = 1
    ctx_id: str | None = Field(description="Null where the request was too broken to tell.")
    request_id: str | None = Field(description="The request's message_id.")
    turn: int = Field(description="Number of the turn this request became in its context; 0 for an error.")
    status: Literal["ok", "error"]
    message: Message | None = None
    misc: dict[str, Any] | None = None
    error: ReplyError | None = None


def reply_id(ctx_id: str | None, request_id: str | None) -> str:
    """`message_id` of the reply, the same on every redelivery.

    Derived from both ids: should two contexts use one request id, their replies still differ, and the client library
    never has one id in flight twice, which would mix up their returns.
    """
    name = f"{ctx_id}\0{_unicode(request_id)}".encode()
    found = sha1(_NAMESPACE + name, usedforsecurity=False).hexdigest()
    # As `str(uuid5(...))`, of which this is what RFC 9562 (5.5) says, without the object: there is one in every turn.
    variant = "89ab"[int(found[16], 16) & 3]
    return f"{found[:8]}-{found[8:12]}-5{found[13:16]}-{variant}{found[17:20]}-{found[20:32]}"


def _unicode(request_id: str | None) -> str | None:
    # An id that is not UTF-8 came as lone surrogates, and its sender is still to be told that.
    return None if request_id is None else str.encode(request_id, errors="backslashreplace").decode()


def encode_reply(
    request: Request, response: Message | None, misc: dict[str, Any], turn: int, limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """Body of the reply to `request`. Raises `RequestRejected(reply-invalid)` where it cannot travel, or is too large,
    or `misc` is."""
    try:
        message = None if response is None else message_json(response)
        refuse_unsafe(message)
        body = _reply_body(request.ctx_id, request.request_id, turn, "ok", message)
        encoded = to_json(body | {"misc": json_object(misc)} if misc else body)
    except RequestRejected as error:
        raise RequestRejected(Reason.REPLY_INVALID, "the bot's answer cannot be sent", internal=error.detail) from error
    except ValueError as error:
        raise RequestRejected(Reason.REPLY_INVALID, "the bot's answer cannot be sent", internal=str(error)) from error
    if misc and len(encoded) > limits.misc_bytes:  # Otherwise misc, a part of it, is not too large either.
        require_size("misc as the bot left it", len(to_json(json_object(misc))), limits.misc_bytes, "max_misc_bytes")
    require_size("the bot's answer", len(encoded), limits.reply_bytes, "max_reply_bytes")
    return encoded if request.opened is None else request.opened.seal_reply(encoded, request.request_id)


def encode_error_reply(
    ctx_id: str | None, request_id: str | None, rejected: RequestRejected, opened: Opened | None = None
) -> bytes:
    """Body of the reply that says why a request got no answer; encrypted where the request was and could be read."""
    body = _reply_body(ctx_id, _unicode(request_id), 0, "error", None)
    encoded = to_json(body | {"error": {"code": rejected.reason.value, "detail": rejected.detail}})
    return encoded if opened is None else opened.seal_reply(encoded, request_id or "")


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


def decode_reply(body: bytes, keys: Keys | None = None) -> Reply:
    """Decrypt and parse a reply body. Raises `ValueError` where it is not one, or unsafe, and `DecryptionFailed`."""
    opened = None if keys is None else open_reply(body, keys)
    raw = from_json(body if opened is None else opened, allow_inf_nan=False)
    if is_sealed(raw):
        raise DecryptionFailed("it is encrypted, and there are no keys here")
    if isinstance(raw, dict):
        refuse_unsafe(raw.get("message"), raw.get("misc"))
    reply = Reply.model_validate(raw)
    # A worker that could not read a request says so in plain: it knows neither its context nor its key.
    if opened is None and not (reply.status == "error" and reply.ctx_id is None):
        require_plain(keys)
    return reply
