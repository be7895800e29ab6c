"""Wire contract v1, requests: between Python objects and the bytes and properties of a broker message.

Whatever is wrong with a request is found here and raised as `RequestRejected` with its reason; nothing unchecked gets
past `decode_request`. Replies are in `interfaces.reply_bodies`.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.data_model import json_object
from interfaces.encryption import Keys
from interfaces.errors import DecryptionFailed, MisuseError, Reason, RequestRejected
from interfaces.limits import MAX_BODY_BYTES, WIDEST, Limits, refuse_excess
from interfaces.messages import Message, text_message
from interfaces.sealed_bodies import Opened, is_sealed, open_request, seal_request
from interfaces.topology import Topology, slot
from interfaces.unsafe import refuse_unsafe

VERSION: Final = 1
JSON: Final = "application/json"
PERSISTENT: Final = 2
MAX_CTX_ID_BYTES: Final = 200
"""With an interface name of 50 and a dot it still fits AMQP's routing key of 255 bytes."""
MAX_MESSAGE_ID_BYTES: Final = 255
MAX_SHOWN: Final = 50
"""Characters of a field's name that an error repeats."""
INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
DEFAULT_LIMITS: Final = Limits()
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"
SERVER_NAMED: Final = "amq.gen-"
_TEXT_ALONE: Final = {"version", "ctx_id", "message"}
_TEXT: Final = {"text"}
_TEXT_ALONE_NODES: Final = len(_TEXT_ALONE) + len(_TEXT)


class RequestBody(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, title="Switchboard request, version 1")

    version: Literal[1] = 1
    ctx_id: str = Field(min_length=1, max_length=MAX_CTX_ID_BYTES, description="Context id, 1-200 bytes of UTF-8.")
    message: Message
    update_ctx_misc: dict[str, Any] | None = Field(default=None, description="Merged into the context's misc first.")


@dataclass(slots=True, eq=False)
class Request:
    """One request, checked."""

    ctx_id: str
    request_id: str
    message: Message
    update_ctx_misc: dict[str, Any] | None
    delivery: Delivery
    opened: Opened | None = None
    """Where its body came encrypted."""

    @property
    def body(self) -> bytes:
        """Its body in plain."""
        return self.delivery.body if self.opened is None else self.opened.body


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
    keys: Keys | None = None,
) -> Outgoing:
    """A request ready to publish, encrypted where there is a key that writes.

    Raises `MisuseError` where no worker would accept it.
    """
    if not 1 <= len(request_id.encode()) <= MAX_MESSAGE_ID_BYTES:
        raise MisuseError(f"request id {request_id[:50]!r}: it must have 1 to {MAX_MESSAGE_ID_BYTES} bytes of UTF-8")
    fields: dict[str, Any] = {"version": VERSION, "ctx_id": ctx_id}
    try:
        fields["message"] = message.model_dump(mode="json")
        if update_ctx_misc:
            fields["update_ctx_misc"] = json_object(update_ctx_misc)
        body = to_json(fields)
        decode_body(body, WIDEST)
        body = seal_request(body, ctx_id, request_id, keys)
        _refuse_large(body, MAX_BODY_BYTES)
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


def decode_request(
    delivery: Delivery, topology: Topology, keys: Keys | None = None, limits: Limits = DEFAULT_LIMITS
) -> Request:
    """Check a delivery against the contract, and decrypt it where there are keys. Raises `RequestRejected`."""
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
    opened = None if keys is None else _open(delivery.body, properties.message_id, keys)
    body = decode_body(delivery.body if opened is None else opened.body, limits)
    if opened is not None and opened.ctx_id != body.ctx_id:
        raise RequestRejected(Reason.BAD_SHAPE, "ctx_id is another in the encrypted body than beside it")
    if delivery.routing_key != str(slot(body.ctx_id)):
        raise RequestRejected(
            Reason.MISROUTED,
            f"routing key {delivery.routing_key!r}: the slot of this ctx_id is {slot(body.ctx_id)} (CRC-32 mod 1024)",
        )
    return Request(body.ctx_id, properties.message_id, body.message, body.update_ctx_misc, delivery, opened)


def _open(body: bytes, request_id: str, keys: Keys) -> Opened | None:
    _refuse_large(body, MAX_BODY_BYTES)
    try:
        return open_request(body, request_id, keys)
    except DecryptionFailed as error:
        detail = "the body cannot be decrypted, or must be encrypted"
        raise RequestRejected(Reason.NOT_DECRYPTED, detail, internal=str(error)) from error


class DecodedBody(NamedTuple):
    """What a request body says; a `RequestBody` without its version."""

    ctx_id: str
    message: Message
    update_ctx_misc: dict[str, Any] | None = None


def decode_body(body: bytes, limits: Limits = DEFAULT_LIMITS) -> DecodedBody:
    """Parse and check a request body alone. Raises `RequestRejected`."""
    raw = _parse(body, limits.body_bytes)
    return _text_alone(raw, limits) or _decode_any(raw, limits)


def _text_alone(raw: Any, limits: Limits) -> DecodedBody | None:
    """A body that is a text for a context and nothing else, as most are; `None` for any other, and for a faulty one.

    Two calls out of three that `_decode_any` makes look for what such a body has no place for.
    """
    if type(raw) is not dict or raw.keys() != _TEXT_ALONE or limits.depth < 1 or limits.nodes < _TEXT_ALONE_NODES:
        return None
    message, ctx_id, version = raw["message"], raw["ctx_id"], raw["version"]
    if type(message) is not dict or message.keys() != _TEXT or type(text := message["text"]) is not str:
        return None
    if version != VERSION or type(version) is not int or len(text) > limits.text:
        return None
    if type(ctx_id) is not str or _ctx_id_fault(ctx_id) is not None:
        return None
    return DecodedBody(ctx_id, text_message(text))


def _decode_any(raw: Any, limits: Limits) -> DecodedBody:
    if not isinstance(raw, dict):
        raise RequestRejected(Reason.BAD_SHAPE, "the body must be a JSON object")
    if is_sealed(raw):
        internal = "the body is encrypted, and SWITCHBOARD_ENCRYPTION_KEYS is not set here"
        raise RequestRejected(Reason.NOT_DECRYPTED, "the body is encrypted", internal=internal)
    version = raw.get("version")
    if version != VERSION or isinstance(version, bool):
        raise RequestRejected(Reason.BAD_VERSION, f"version must be {VERSION}")
    # Before any model is built: 300,000 empty attachments in one body held up the event loop for 12 s.
    refuse_excess(raw, limits)
    _refuse_unwritable(raw, limits)
    refuse_unsafe(raw.get("message"), raw.get("update_ctx_misc"))
    # Before the model looks: it would call an id of too many characters something else than one of too many bytes.
    if isinstance(ctx_id := raw.get("ctx_id"), str) and (fault := _ctx_id_fault(ctx_id)) is not None:
        raise RequestRejected(Reason.BAD_CONTEXT_ID, f"ctx_id: {fault}")
    try:
        request = RequestBody.model_validate(raw)
    except ValidationError as error:
        raise RequestRejected(Reason.BAD_SHAPE, first_fault(error)) from error
    interface = request.message.origin.interface if request.message.origin else None
    if interface is not None and not INTERFACE_NAME.fullmatch(interface):
        raise RequestRejected(Reason.BAD_SHAPE, "message.origin.interface must be 1-50 characters of A-Z a-z 0-9 _ -")
    return DecodedBody(request.ctx_id, request.message, request.update_ctx_misc)


def _parse(body: bytes, limit: int) -> Any:
    _refuse_large(body, limit)
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


def _refuse_large(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise RequestRejected(Reason.BODY_TOO_LARGE, f"the body has {len(body)} bytes, the limit is {limit}")


def _refuse_unwritable(body: dict[str, Any], limits: Limits) -> None:
    """Refuse what has too many values, and what could not be written again: a bot would be blamed after its turn."""
    level: list[Any] = [body]
    depth = nodes = 0
    # By `type`, which is faster than `isinstance`: what the parser makes is of these classes and of none below them.
    while level:
        if depth > limits.depth:
            raise RequestRejected(Reason.TOO_DEEP, f"the body is nested deeper than {limits.depth} levels")
        for value in level:
            nodes += len(value)
        if nodes > limits.nodes:
            raise RequestRejected(Reason.TOO_MANY_VALUES, f"the body has more than {limits.nodes} values")
        below: list[Any] = []
        for value in level:
            for item in value.values() if type(value) is dict else value:
                if type(item) is dict or type(item) is list:
                    below.append(item)
                elif type(item) is float and not math.isfinite(item):
                    # The parser refuses the names of such numbers, and reads 1e999 as one.
                    raise RequestRejected(Reason.BAD_JSON, "a number in the body is too large")
        level, depth = below, depth + 1


def first_fault(error: ValidationError) -> str:
    """The first thing wrong, with where it is, as one line; of the input it repeats names of fields, shortened."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(_shown(str(part)) for part in faults[0]["loc"]) or "body"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {faults[0]['msg']}{more}"


def _shown(name: str) -> str:
    # Names of unknown fields are a stranger's text, and this goes into logs.
    return name if name.isprintable() and len(name) <= MAX_SHOWN else repr(name[:MAX_SHOWN])


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
