"""Wire contract v1: what is encoded is read back, what breaks the contract is refused with its reason."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.brokers import Delivery, Outgoing
from interfaces.envelope import (
    Request,
    context_id,
    decode_body,
    decode_request,
    encode_request,
    may_reply_to,
)
from interfaces.errors import MisuseError, Reason, RequestRejected
from interfaces.limits import MAX_BODY_BYTES, WIDEST
from interfaces.messages import Document, Message, Origin
from interfaces.reply_bodies import (
    REPLY_IDS,
    decode_reply,
    encode_error_reply,
    encode_reply,
    interface_of,
    reply_id,
    reply_outgoing,
)
from interfaces.topology import SLOTS, Topology, slot
from tests.unit.deliveries import StubChannel

TOPOLOGY = Topology("ns")

texts = st.text(max_size=20)
ids = st.text(min_size=1, max_size=50)
free_json = st.dictionaries(
    texts,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)
messages = st.builds(
    Message,
    st.none() | texts,
    annotations=st.none() | free_json,
    misc=st.none() | free_json,
    attachments=st.none() | st.lists(st.builds(Document, source=st.just("https://a/b"), caption=texts), max_size=2),
    origin=st.none() | st.builds(Origin, interface=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,50}", fullmatch=True)),
)

known_keys = st.sampled_from(
    ["version", "ctx_id", "message", "update_ctx_misc", "text", "attachments", "source", "misc"]
)
almost_requests = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known_keys, inner, max_size=4),
    max_leaves=12,
)


def delivered(outgoing: Outgoing) -> Delivery:
    """The delivery that a published message becomes."""
    return Delivery(
        body=outgoing.body,
        properties=outgoing.properties,
        exchange=outgoing.exchange,
        routing_key=outgoing.routing_key,
        redelivered=False,
        delivery_count=0,
        tag=1,
        channel=StubChannel(),
    )


def request(ctx_id: str = "ctx", *, reply_to: str | None = None, message: Message | None = None) -> Request:
    outgoing = encode_request(TOPOLOGY, message or Message("hi"), ctx_id, request_id="r1", reply_to=reply_to)
    return decode_request(delivered(outgoing), TOPOLOGY)


def body_of(**changes: Any) -> bytes:
    body = {"version": 1, "ctx_id": "ctx", "message": {"text": "hi"}} | changes
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


def reason_of(refused: Callable[[], object]) -> Reason:
    with pytest.raises(RequestRejected) as caught:
        refused()
    assert caught.value.detail
    return caught.value.reason


@given(message=messages, ctx_id=ids, misc=st.none() | free_json, reply_to=st.none() | st.just("ns.reply.x"))
def test_a_request_is_read_back_as_it_was_sent(
    message: Message, ctx_id: str, misc: dict[str, Any] | None, reply_to: str | None
) -> None:
    outgoing = encode_request(TOPOLOGY, message, ctx_id, request_id="r1", update_ctx_misc=misc, reply_to=reply_to)
    read = decode_request(delivered(outgoing), TOPOLOGY)
    assert (read.ctx_id, read.request_id, read.message, read.update_ctx_misc or None) == (
        ctx_id,
        "r1",
        message,
        misc or None,
    )
    assert read.delivery.properties.reply_to == reply_to
    assert outgoing.mandatory


def test_a_request_travels_as_the_contract_says() -> None:
    sent = encode_request(TOPOLOGY, Message("hi"), "käse", request_id="r1", reply_to="ns.reply.x")
    assert json.loads(sent.body) == {"version": 1, "ctx_id": "käse", "message": {"text": "hi"}}
    assert (sent.exchange, sent.routing_key) == ("ns.requests", "759")  # CRC-32 of the UTF-8 bytes, modulo 1024
    properties = sent.properties
    assert (properties.content_type, properties.content_encoding) == ("application/json", None)
    assert (properties.message_id, properties.correlation_id) == ("r1", "r1")
    assert (properties.delivery_mode, properties.reply_to, properties.expiration) == (2, "ns.reply.x", None)
    assert properties.timestamp is not None
    assert properties.timestamp.tzinfo is not None


@given(ctx_id=st.text(max_size=200))
def test_every_context_id_has_a_slot(ctx_id: str) -> None:
    assert 0 <= slot(ctx_id) < SLOTS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"message_id": None}, Reason.BAD_MESSAGE_ID),
        ({"message_id": ""}, Reason.BAD_MESSAGE_ID),
        ({"reply_to": "somebodys.queue"}, Reason.BAD_REPLY_TO),
        ({"reply_to": "ns.requests.g1.000"}, Reason.BAD_REPLY_TO),
        ({"content_encoding": "gzip"}, Reason.BAD_ENCODING),
        ({"content_type": "application/msgpack"}, Reason.BAD_CONTENT_TYPE),
        ({"content_type": "text/json"}, Reason.BAD_CONTENT_TYPE),
    ],
)
def test_properties_that_break_the_contract_are_refused(changes: dict[str, Any], reason: Reason) -> None:
    sent = encode_request(TOPOLOGY, Message("hi"), "ctx", request_id="r1")
    broken = replace(sent, properties=replace(sent.properties, **changes))
    assert reason_of(lambda: decode_request(delivered(broken), TOPOLOGY)) is reason


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", None, ""])
def test_json_is_accepted_however_it_is_announced(content_type: str | None) -> None:
    sent = encode_request(TOPOLOGY, Message("hi"), "ctx", request_id="r1")
    changed = replace(sent, properties=replace(sent.properties, content_type=content_type))
    assert decode_request(delivered(changed), TOPOLOGY).ctx_id == "ctx"


@given(key=st.text(max_size=5))
def test_any_routing_key_but_the_slot_is_misrouted(key: str) -> None:
    sent = encode_request(TOPOLOGY, Message("hi"), "ctx", request_id="r1")
    if key != sent.routing_key:
        astray = delivered(replace(sent, routing_key=key))
        assert reason_of(lambda: decode_request(astray, TOPOLOGY)) is Reason.MISROUTED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.BAD_JSON),
        (b"hello", Reason.BAD_JSON),
        (b'{"version": 1,', Reason.BAD_JSON),
        (b'{"version": NaN}', Reason.BAD_JSON),
        (b'{"version": Infinity}', Reason.BAD_JSON),
        (body_of() + body_of(), Reason.BAD_JSON),
        (b"\xff\xfe", Reason.BAD_ENCODING),
        (json.dumps({"version": 1}).encode("utf-16"), Reason.BAD_ENCODING),
        (b"[" * 10_000 + b"]" * 10_000, Reason.TOO_DEEP),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, Reason.TOO_DEEP),
        (b"null", Reason.BAD_SHAPE),
        (b"[]", Reason.BAD_SHAPE),
        (b'"text"', Reason.BAD_SHAPE),
        (body_of(version=...), Reason.BAD_VERSION),
        (body_of(version=2), Reason.BAD_VERSION),
        (body_of(version="1"), Reason.BAD_VERSION),
        (body_of(version=True), Reason.BAD_VERSION),
        (body_of(version=None), Reason.BAD_VERSION),
        (body_of(message=...), Reason.BAD_SHAPE),
        (body_of(message=None), Reason.BAD_SHAPE),
        (body_of(message=7), Reason.BAD_SHAPE),
        (body_of(message={"text": 7}), Reason.BAD_SHAPE),
        (body_of(message={"attachments": [{"chatsky_attachment_type": "image", "source": 7}]}), Reason.BAD_SHAPE),
        (body_of(ctx_id=...), Reason.BAD_SHAPE),
        (body_of(ctx_id=7), Reason.BAD_SHAPE),
        (body_of(ctx_id=""), Reason.BAD_CONTEXT_ID),
        (body_of(ctx_id="\ud800"), Reason.BAD_JSON),
        (body_of(update_ctx_misc=[1]), Reason.BAD_SHAPE),
        (body_of(unknown=1), Reason.BAD_SHAPE),
        (body_of(message={"origin": {"interface": "has space"}}), Reason.BAD_SHAPE),
        (body_of(message={"origin": {"interface": "a" * 51}}), Reason.BAD_SHAPE),
        (body_of(message={"origin": {"interface": "line\n"}}), Reason.BAD_SHAPE),
        (body_of(message={"misc": {"__pickled_extra_fields__": {}}}), Reason.UNSAFE_PAYLOAD),
        (body_of(update_ctx_misc={"a": [{"__pickled_extra_fields__": {}}]}), Reason.UNSAFE_PAYLOAD),
        (body_of(message={"origin": {"message": "gASV"}}), Reason.UNSAFE_PAYLOAD),
    ],
)
def test_a_body_that_breaks_the_contract_is_refused(body: bytes, reason: Reason) -> None:
    assert reason_of(lambda: decode_body(body)) is reason


@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_but_a_rejection(body: bytes) -> None:
    with pytest.raises(RequestRejected):
        decode_body(body)


@given(body=almost_requests)
def test_no_json_raises_anything_but_a_rejection(body: Any) -> None:
    with suppress(RequestRejected):
        decode_body(json.dumps(body | {"version": 1} if isinstance(body, dict) else body).encode())


@pytest.mark.parametrize("longest", ["x" * 200, "ü" * 100, "🎉" * 50])
def test_a_context_id_has_at_most_200_bytes(longest: str) -> None:
    assert context_id(longest) == longest
    assert decode_body(body_of(ctx_id=longest)).ctx_id == longest
    with pytest.raises(MisuseError, match="201 bytes"):
        context_id(longest + "x")
    assert reason_of(lambda: decode_body(body_of(ctx_id=longest + "x"))) is Reason.BAD_CONTEXT_ID


@pytest.mark.parametrize("ctx_id", ["", "\ud800"])
def test_a_context_id_that_is_empty_or_no_unicode_is_misuse(ctx_id: str) -> None:
    with pytest.raises(MisuseError, match="context id"):
        context_id(ctx_id)


def test_a_context_id_of_the_api_is_any_hashable() -> None:
    assert [context_id(given) for given in (1, "1", ("a", 2), None)] == ["1", "1", "('a', 2)", "None"]


def test_a_request_at_the_size_limit_travels_and_one_byte_more_is_misuse() -> None:
    overhead = len(encode_request(TOPOLOGY, Message(""), "ctx", request_id="r1").body)
    largest = encode_request(TOPOLOGY, Message("x" * (MAX_BODY_BYTES - overhead)), "ctx", request_id="r1")
    assert len(largest.body) == MAX_BODY_BYTES
    assert decode_request(delivered(largest), TOPOLOGY, limits=WIDEST).request_id == "r1"
    with pytest.raises(MisuseError, match=f"{MAX_BODY_BYTES + 1} bytes"):
        encode_request(TOPOLOGY, Message("x" * (MAX_BODY_BYTES - overhead + 1)), "ctx", request_id="r1")
    assert reason_of(lambda: decode_body(largest.body + b" ")) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize(
    "message",
    [
        Message(attachments=[Document(source="/etc/passwd")]),
        Message(misc={"value": object()}),
        Message(misc={"value": float("nan")}),
        Message(origin=Origin(interface="has space")),
        Message(text="\ud800"),
    ],
    ids=["file", "object", "not a number", "interface name", "surrogate"],
)
def test_a_message_no_worker_would_accept_is_misuse_before_it_is_sent(message: Message) -> None:
    with pytest.raises(MisuseError):
        encode_request(TOPOLOGY, message, "ctx", request_id="r1")


@pytest.mark.parametrize("request_id", ["", "x" * 256, "ü" * 128])
def test_a_request_id_amqp_cannot_carry_is_misuse_before_it_is_sent(request_id: str) -> None:
    with pytest.raises(MisuseError, match="request id"):
        encode_request(TOPOLOGY, Message("hi"), "ctx", request_id=request_id)


@pytest.mark.parametrize(
    ("reply_to", "allowed"),
    [
        ("amq.rabbitmq.reply-to", True),
        ("amq.rabbitmq.reply-to.g1h2AA==", True),
        ("amq.gen-JzTY20BRgKO", True),
        ("ns.reply.x", True),
        ("ns.reply.", True),
        ("ns.reply", False),
        ("ns.dead", False),
        ("nsx.reply.x", False),
        ("other.reply.x", False),
        ("NS.reply.x", False),
        (" ns.reply.x", False),
        ("amq.topic", False),
    ],
)
def test_only_reply_queues_may_be_written_to(reply_to: str, allowed: bool) -> None:
    assert may_reply_to(reply_to, TOPOLOGY) is allowed


@given(first=st.tuples(ids, ids), second=st.tuples(ids, ids))
def test_a_reply_id_is_the_same_for_the_same_request_and_another_for_any_other(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert reply_id(*first) == reply_id(*first)
    assert (reply_id(*first) == reply_id(*second)) == (first == second)
    assert reply_id(*first) == str(uuid5(REPLY_IDS, "\0".join(first)))


def test_a_reply_id_never_changes_between_releases() -> None:
    assert reply_id("ctx", "r1") == "c243cf27-95fa-5d84-ad8b-13f1b2e13611"


@given(answer=st.none() | messages, misc=free_json, turn=st.integers(1, 2**31))
def test_a_reply_is_read_back_as_it_was_sent(answer: Message | None, misc: dict[str, Any], turn: int) -> None:
    reply = decode_reply(encode_reply(request(), answer, misc, turn))
    assert (reply.ctx_id, reply.request_id, reply.turn, reply.status) == ("ctx", "r1", turn, "ok")
    assert (reply.message, reply.misc or {}, reply.error) == (answer, misc, None)


@given(answer=st.none() | messages, misc=free_json)
def test_a_reply_has_the_same_bytes_every_time(answer: Message | None, misc: dict[str, Any]) -> None:
    assert encode_reply(request(), answer, misc, 1) == encode_reply(request(), answer, misc, 1)


def test_an_error_reply_says_why_and_nothing_about_the_inside_of_the_bot() -> None:
    rejected = RequestRejected(Reason.HANDLER_FAILED, "the bot failed", internal="secret stack")
    body = encode_error_reply("ctx", "r1", rejected)
    reply = decode_reply(body)
    assert reply.error is not None
    assert (reply.status, reply.turn, reply.error.code, reply.error.detail) == (
        "error",
        0,
        "handler-failed",
        "the bot failed",
    )
    assert b"secret" not in body
    assert decode_reply(encode_error_reply(None, None, rejected)).ctx_id is None


@pytest.mark.parametrize(
    ("answer", "misc"),
    [
        (Message("x" * MAX_BODY_BYTES), {}),
        (Message("hi"), {"big": "x" * MAX_BODY_BYTES}),
        (Message("hi"), {"value": object()}),
        (Message(misc={"value": object()}), {}),
        (Message(attachments=[Document(source="/srv/bot/private.txt")]), {}),
    ],
    ids=["large", "large misc", "misc no JSON", "message no JSON", "file"],
)
def test_an_answer_that_cannot_travel_is_rejected_with_the_cause_for_operators_only(
    answer: Message, misc: dict[str, Any]
) -> None:
    with pytest.raises(RequestRejected) as caught:
        encode_reply(request(), answer, misc, 1)
    assert caught.value.reason is Reason.REPLY_INVALID
    assert caught.value.internal
    assert caught.value.internal not in caught.value.detail


def test_a_reply_at_the_size_limit_travels_and_one_byte_more_is_rejected() -> None:
    overhead = len(encode_reply(request(), Message(""), {}, 1))
    assert len(encode_reply(request(), Message("x" * (MAX_BODY_BYTES - overhead)), {}, 1)) == MAX_BODY_BYTES
    with pytest.raises(RequestRejected, match=f"{MAX_BODY_BYTES + 1} bytes"):
        encode_reply(request(), Message("x" * (MAX_BODY_BYTES - overhead + 1)), {}, 1)


def test_a_reply_goes_where_the_request_asked_for_it() -> None:
    asked = request(reply_to="ns.reply.x")
    reply = reply_outgoing(TOPOLOGY, asked.delivery, "ctx", b"body")
    assert (reply.exchange, reply.routing_key, reply.body, reply.mandatory) == ("", "ns.reply.x", b"body", True)
    assert reply.properties.message_id == reply_id("ctx", "r1")
    assert reply.properties.correlation_id == "r1"
    assert (reply.properties.delivery_mode, reply.properties.content_type) == (2, "application/json")


def test_a_reply_nobody_asked_for_goes_to_the_replies_exchange_under_its_interface() -> None:
    assert reply_outgoing(TOPOLOGY, request("a.b").delivery, "a.b", b"").routing_key == "default.a.b"
    asked = request("a.b", message=Message("hi", origin=Origin(interface="web")))
    reply = reply_outgoing(TOPOLOGY, asked.delivery, "a.b", b"", interface_of(asked.message))
    assert (reply.exchange, reply.routing_key) == ("ns.replies", "web.a.b")


def test_the_longest_reply_routing_key_fits_into_amqp() -> None:
    message = Message("hi", origin=Origin(interface="i" * 50))
    asked = request("x" * 200, message=message)
    reply = reply_outgoing(TOPOLOGY, asked.delivery, asked.ctx_id, b"", interface_of(message))
    assert len(reply.routing_key.encode()) <= 255


def test_a_direct_reply_is_not_mandatory() -> None:
    asked = request(reply_to="amq.rabbitmq.reply-to.g1h2AA==")
    assert reply_outgoing(TOPOLOGY, asked.delivery, "ctx", b"").mandatory is False


def test_a_correlation_id_of_the_sender_is_kept() -> None:
    sent = encode_request(TOPOLOGY, Message("hi"), "ctx", request_id="r1")
    correlation_id = str(uuid4())
    asked = delivered(replace(sent, properties=replace(sent.properties, correlation_id=correlation_id)))
    assert reply_outgoing(TOPOLOGY, asked, "ctx", b"").properties.correlation_id == correlation_id


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"version":2,"ctx_id":null,"request_id":null,"turn":0,"status":"ok"}',
        b'{"version":1,"ctx_id":null,"request_id":null,"turn":0,"status":"ok","misc":{"__pickled_extra_fields__":{}}}',
        b'{"version":1,"ctx_id":null,"request_id":null,"turn":0,"status":"ok","message":{"origin":{"message":"gASV"}}}',
        b'{"version":1,"ctx_id":null,"request_id":null,"turn":0,"status":"ok","message":{"attachments":[{"source":"/a"}]}}',
    ],
    ids=["empty", "list", "version", "pickle in misc", "pickled original", "file"],
)
def test_a_reply_that_is_none_or_unsafe_is_not_read(body: bytes) -> None:
    with pytest.raises((ValueError, RequestRejected)):
        decode_reply(body)
