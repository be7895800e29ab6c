"""docs/asyncapi.yaml, the wire contract as an AsyncAPI 3 document: `make asyncapi` writes it.

Bodies come from the models that decode and encode them, names from `Topology`, reasons from their enumeration; what a
schema cannot say is in docs/wire-contract.md. `tests/unit/test_asyncapi_document.py` fails where the document is stale
or refers to nothing, and puts its examples through the schemas and through the code. Whether it is AsyncAPI as the
specification has it, only `make asyncapi-check` tells, by AsyncAPI's own parser.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from interfaces.attachment_requests import AttachmentAnswer, AttachmentRequest
from interfaces.dead_letters import HEADER_PREFIX
from interfaces.envelope import INTERFACE_NAME, JSON, MAX_MESSAGE_ID_BYTES, RequestBody
from interfaces.errors import Reason
from interfaces.reply_bodies import Reply, reply_id
from interfaces.topology import SLOTS, Topology, slot
from worker.cli.schema import schema as schema_on_the_wire

DOCUMENT: Final = Path(__file__).parents[1] / "docs/asyncapi.yaml"
TOPOLOGY: Final = Topology()

Json = dict[str, Any]

BODIES: Final[Mapping[str, Json]] = {
    "Request": schema_on_the_wire("request"),
    "Reply": schema_on_the_wire("reply"),
    "AttachmentRequest": AttachmentRequest.model_json_schema(),
    "AttachmentAnswer": AttachmentAnswer.model_json_schema(),
}
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "Request": RequestBody,
    "Reply": Reply,
    "AttachmentRequest": AttachmentRequest,
    "AttachmentAnswer": AttachmentAnswer,
}
"""What reads each of the bodies."""

ABOUT: Final = """Dialog bots as worker processes behind RabbitMQ, seen from a worker: it receives requests, sends
replies. `switchboard` in every name is the namespace. AMQP's own properties (`message_id`, `reply_to` and so on) stand
among the headers, since AsyncAPI has no other place for them. Encrypted bodies and what a publisher must do are in the
wire contract, docs/wire-contract.md.
"""


def document() -> Json:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Switchboard wire contract",
            "version": "1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {"rabbitmq": {"host": "127.0.0.1:5672", "protocol": "amqp", "protocolVersion": "0.9.1"}},
        "channels": channels(),
        "operations": operations(),
        "components": {"schemas": schemas(), "messages": messages()},
    }


def schemas() -> Json:
    """The bodies and what they are made of, each once. Raises `ValueError` where two things have one name."""
    found: Json = {}
    for name, body in BODIES.items():
        own = copy.deepcopy(body)
        parts = {**own.pop("$defs", {}), name: own}
        for part, schema in parts.items():
            moved = _moved(schema)
            if found.setdefault(part, moved) != moved:
                raise ValueError(f"two schemas are named {part}")
    return dict(sorted(found.items()))


def _moved(schema: Any) -> Any:
    """A schema whose references lead to where AsyncAPI keeps schemas, without what has another meaning there."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if key not in ("$schema", "discriminator")}
        return {key: _moved(value) for key, value in kept.items()}
    if isinstance(schema, list):
        return [_moved(value) for value in schema]
    return schema.replace("#/$defs/", "#/components/schemas/") if isinstance(schema, str) else schema


def channels() -> Json:
    """Where messages go, by exchange or queue."""
    interface = {"description": f"Name of the source of a message, `{INTERFACE_NAME.pattern}`."}
    return {
        "requests": {
            "address": "{slot}",
            "description": f"Routing key: CRC-32 of the context id's UTF-8 bytes, modulo {SLOTS}, in decimal.",
            "messages": {"request": _message("Request")},
            "parameters": {"slot": {"description": f"0 to {SLOTS - 1}.", "examples": [str(slot("ada"))]}},
            "bindings": _exchange(TOPOLOGY.requests_exchange),
        },
        "replies": {
            "address": "{interface}.{ctx_id}",
            "description": "Replies to requests without `reply_to`.",
            "messages": {"reply": _message("Reply")},
            "parameters": {"interface": interface, "ctx_id": {"description": "The context id."}},
            "bindings": _exchange(TOPOLOGY.replies_exchange),
        },
        "replyTo": {
            "address": None,
            "description": "The default exchange, with the request's `reply_to` as routing key.",
            "messages": {"reply": _message("Reply")},
        },
        "attachmentRequests": {
            "address": TOPOLOGY.edge_queue("{interface}"),
            "description": "The queue that all edges of a name share.",
            "messages": {"attachmentRequest": _message("AttachmentRequest")},
            "parameters": {"interface": interface},
            "bindings": _queue(TOPOLOGY.edge_queue("{interface}")),
        },
        "attachmentAnswers": {
            "address": None,
            "description": "The default exchange, with the request's `reply_to` as routing key.",
            "messages": {"attachmentAnswer": _message("AttachmentAnswer")},
        },
        "deadLetters": {
            "address": TOPOLOGY.dead,
            "description": "Requests that could not be processed, bodies and properties as they were.",
            "messages": {"deadLetter": _message("DeadLetter")},
            "bindings": _queue(TOPOLOGY.dead),
        },
    }


def operations() -> Json:
    """What a worker does."""
    return {
        "receiveRequest": {
            "action": "receive",
            "channel": {"$ref": "#/channels/requests"},
            "reply": {
                "address": {"location": "$message.header#/reply_to"},
                "channel": {"$ref": "#/channels/replyTo"},
            },
        },
        "sendReply": {"action": "send", "channel": {"$ref": "#/channels/replies"}},
        "askForAttachment": {
            "action": "send",
            "channel": {"$ref": "#/channels/attachmentRequests"},
            "reply": {
                "address": {"location": "$message.header#/reply_to"},
                "channel": {"$ref": "#/channels/attachmentAnswers"},
            },
        },
        "keepDeadLetter": {"action": "send", "channel": {"$ref": "#/channels/deadLetters"}},
    }


def messages() -> Json:
    """Bodies with the properties they travel with, and an example of each."""
    text: Json = {"type": "string"}
    an_id = {"type": "string", "minLength": 1, "maxLength": MAX_MESSAGE_ID_BYTES}
    reply_to = {**text, "description": f"A direct-reply or server-named queue, or `{TOPOLOGY.reply_prefix}...`."}
    asked = {
        "message_id": {**an_id, "description": "Unique per request; the same when it is published again."},
        "reply_to": reply_to,
        "correlation_id": text,
        "expiration": {**text, "description": "Milliseconds; an expired request is a dead letter."},
        "timestamp": {"type": "integer", "description": "Seconds, as AMQP has it."},
        "traceparent": text,
        "tracestate": text,
    }
    answered = {
        "message_id": {**an_id, "description": "The same whenever this reply is published."},
        "correlation_id": {**text, "description": "The request's, or its `message_id`."},
    }
    kept = {
        "reason": {**text, "enum": [reason.value for reason in Reason]},
        "detail": text,
        "attempts": {"type": "integer"},
        "worker": text,
        "failed-at": {**text, "format": "date-time"},
        "exchange": text,
        "routing-key": text,
    }
    return {
        "Request": _described("Request", asked, ["message_id"]),
        "Reply": _described("Reply", answered, ["message_id", "correlation_id"]),
        "AttachmentRequest": _described(
            "AttachmentRequest", {"reply_to": reply_to, "correlation_id": text}, ["reply_to", "correlation_id"]
        ),
        "AttachmentAnswer": _described("AttachmentAnswer", {"correlation_id": text}, ["correlation_id"]),
        "DeadLetter": {
            "name": "DeadLetter",
            "headers": {
                "type": "object",
                "properties": {f"{HEADER_PREFIX}{name}": schema for name, schema in kept.items()},
                "description": "Beside those that the request had.",
            },
            "payload": {"description": "The request's body, whatever it was."},
        },
    }


def examples() -> Mapping[str, tuple[Json, Json]]:
    """Headers and payload of one message of each kind."""
    request_id = "order-4711"
    to_edge = {"reply_to": f"{TOPOLOGY.reply_prefix}worker.1", "correlation_id": "1"}
    attachment = {"version": 1, "id": "AgACAgIAAxkBAAM"}
    reference = f"attachment:sha256:{'0' * 64}:70213"
    return {
        "Request": (
            {"message_id": request_id, "reply_to": "amq.rabbitmq.reply-to"},
            {"version": 1, "ctx_id": "ada", "message": {"text": "Hello", "origin": {"interface": "web"}}},
        ),
        "Reply": (
            {"message_id": reply_id("ada", request_id), "correlation_id": request_id},
            {
                "version": 1,
                "ctx_id": "ada",
                "request_id": request_id,
                "turn": 1,
                "status": "ok",
                "message": {"text": "Welcome! Small, medium or large?"},
            },
        ),
        "AttachmentRequest": (to_edge, attachment),
        "AttachmentAnswer": ({"correlation_id": "1"}, attachment | {"reference": reference, "size": 70213}),
    }


def _described(name: str, properties: Json, required: list[str]) -> Json:
    headers, payload = examples()[name]
    return {
        "name": name,
        "contentType": JSON,
        "headers": {"type": "object", "properties": properties, "required": required},
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [{"headers": headers, "payload": payload}],
    }


def _message(name: str) -> Json:
    return {"$ref": f"#/components/messages/{name}"}


def _exchange(name: str) -> Json:
    kind, _ = TOPOLOGY.exchanges[name]
    exchange = {"name": name, "type": kind, "durable": True, "autoDelete": False, "vhost": "/"}
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}}


def _queue(name: str) -> Json:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False, "vhost": "/"}
    return {"amqp": {"is": "queue", "queue": queue, "bindingVersion": "0.3.0"}}


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice, rather than a reference that only YAML knows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written() -> str:
    """The document's file."""
    head = "# Written by `make asyncapi` from the code.\n"
    return head + yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    DOCUMENT.write_text(written())
