"""Encrypted bodies: what travels, what is bound to what, and what becomes of bodies that cannot be read."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from interfaces import Keys, Message
from interfaces.brokers import Delivery, Outgoing
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.errors import DecryptionFailed, MisuseError, Reason, RequestRejected
from interfaces.limits import MAX_BODY_BYTES, WIDEST
from interfaces.reply_bodies import decode_reply, encode_error_reply, encode_reply
from interfaces.sealed_bodies import request_in_plain, reseal_request
from interfaces.topology import Topology
from tests.unit.deliveries import delivery
from worker.dead_letters import new_id, read_dead_letter, replayed

TOPOLOGY = Topology("ns")
MARKER = "Xylophon4711"
K1, K2 = bytes([1]) * 64, bytes([2]) * 64
KEYS = Keys({"k1": K1})


def sent(keys: Keys | None = KEYS, ctx_id: str = "ada", request_id: str = "r1", text: str = MARKER) -> Outgoing:
    return encode_request(TOPOLOGY, Message(text), ctx_id, request_id=request_id, keys=keys)


def arrived(outgoing: Outgoing, body: bytes | None = None) -> Delivery:
    return replace(
        delivery(outgoing.body if body is None else body),
        properties=outgoing.properties,
        exchange=outgoing.exchange,
        routing_key=outgoing.routing_key,
    )


def read(outgoing: Outgoing, keys: Keys | None = KEYS, body: bytes | None = None) -> Request:
    return decode_request(arrived(outgoing, body), TOPOLOGY, keys)


def refused(outgoing: Outgoing, keys: Keys | None = KEYS, body: bytes | None = None) -> RequestRejected:
    with pytest.raises(RequestRejected) as caught:
        read(outgoing, keys, body)
    return caught.value


def test_a_request_travels_encrypted_beside_the_id_that_tools_need() -> None:
    outgoing = sent()
    assert MARKER.encode() not in outgoing.body
    wire = json.loads(outgoing.body)
    assert wire.keys() == {"version", "ctx_id", "sealed"}
    assert (wire["version"], wire["ctx_id"], wire["sealed"]["key"]) == (1, "ada", "k1")
    request = read(outgoing)
    assert (request.ctx_id, request.message.text) == ("ada", MARKER)
    assert json.loads(request.body)["message"]["text"] == MARKER
    assert sent() == replace(outgoing, properties=sent().properties)  # published again, it is the same
    assert read_dead_letter(outgoing).ctx_id == "ada"


def test_without_keys_nothing_changes() -> None:
    outgoing = sent(keys=None)
    request = read(outgoing, keys=None)
    assert (request.opened, request.body) == (None, outgoing.body)
    assert MARKER.encode() in encode_reply(request, Message(MARKER), {}, 1)


@pytest.mark.parametrize(("ctx_id", "request_id"), [("ada", "r2"), ("bob", "r1")])
def test_a_body_in_another_place_is_refused(ctx_id: str, request_id: str) -> None:
    other = sent(ctx_id=ctx_id, request_id=request_id)
    wire = json.loads(sent().body) | {"ctx_id": ctx_id}
    rejected = refused(other, body=json.dumps(wire).encode())
    assert rejected.reason is Reason.NOT_DECRYPTED
    assert "changed or moved" in (rejected.internal or "")


def test_a_reply_is_no_request() -> None:
    request = read(sent())
    body = encode_reply(request, Message("hi"), {}, 1)
    assert refused(sent(), body=body).reason is Reason.NOT_DECRYPTED
    with pytest.raises(DecryptionFailed):
        decode_reply(sent().body, KEYS)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (None, "SWITCHBOARD_ENCRYPTION_KEYS is not set here"),
        (Keys({"k2": K1}), "the key 'k1', which is not in"),
        (Keys({"k1": K2}), "is not the one it was encrypted under"),
    ],
)
def test_without_its_key_a_body_is_a_dead_letter_that_says_why(keys: Keys | None, why: str) -> None:
    rejected = refused(sent(), keys)
    assert rejected.reason is Reason.NOT_DECRYPTED
    assert why in (rejected.internal or "")
    assert "k1" not in rejected.detail


@pytest.mark.parametrize(
    "sealed",
    [
        *(None, 1, "x", {}, {"key": "k1"}, {"key": "k1", "data": "!"}, {"key": "k1", "data": ""}),
        *({"key": "", "data": "eA=="}, {"key": 1, "data": "eA=="}, {"key": "k" * 99, "data": "eA=="}),
        {"key": "k1", "data": "eA==", "more": MARKER},
    ],
)
def test_bodies_that_are_sealed_in_no_known_form_are_dead_letters(sealed: Any) -> None:
    body = json.dumps({"version": 1, "ctx_id": "ada", "sealed": sealed}).encode()
    rejected = refused(sent(), body=body)
    assert rejected.reason is Reason.NOT_DECRYPTED
    assert MARKER not in str(rejected)


def test_a_body_in_plain_is_refused_unless_plain_is_among_the_keys() -> None:
    plain = sent(keys=None)
    assert refused(plain).reason is Reason.NOT_DECRYPTED
    assert refused(plain, body=b"no json").reason is Reason.NOT_DECRYPTED
    request = read(plain, Keys({"k1": K1, "plain": None}))
    reply = encode_reply(request, Message(MARKER), {}, 1)
    assert MARKER.encode() in reply  # whoever asks in plain can read no other answer
    with pytest.raises(DecryptionFailed, match="not encrypted"):
        decode_reply(reply, KEYS)


def test_a_request_for_another_context_inside_is_refused() -> None:
    bob = encode_request(TOPOLOGY, Message("x"), "bob", request_id="r1").body
    sealed = KEYS.seal(bob, "k1", "request", "ada", "r1")
    body = {"version": 1, "ctx_id": "ada", "sealed": {"key": "k1", "data": base64.b64encode(sealed).decode()}}
    assert refused(sent(), body=json.dumps(body).encode()).reason is Reason.BAD_SHAPE


def test_a_reply_is_encrypted_under_the_key_of_its_request_and_the_same_each_time() -> None:
    request = read(sent(), Keys({"k2": K2, "k1": K1}))
    bodies = {encode_reply(request, Message(MARKER), {"a": 1}, 3) for _ in range(3)}
    [body] = bodies
    assert MARKER.encode() not in body
    assert json.loads(body)["sealed"]["key"] == "k1"
    reply = decode_reply(body, KEYS)
    assert (reply.ctx_id, reply.request_id, reply.turn) == ("ada", "r1", 3)
    assert reply.message is not None
    assert reply.message.text == MARKER


@pytest.mark.parametrize("field", ["ctx_id", "request_id"])
def test_a_reply_in_another_place_is_refused(field: str) -> None:
    body = json.loads(encode_reply(read(sent()), Message("hi"), {}, 1)) | {field: "other"}
    with pytest.raises(DecryptionFailed, match="changed or moved"):
        decode_reply(json.dumps(body).encode(), KEYS)


def test_error_replies_are_encrypted_where_the_request_could_be_read_and_plain_where_not() -> None:
    rejected = RequestRejected(Reason.REJECTED, MARKER)
    request = read(sent())
    bodies = {encode_error_reply("ada", "r1", rejected, request.opened) for _ in range(2)}
    [body] = bodies
    assert MARKER.encode() not in body
    reply = decode_reply(body, KEYS)
    assert reply.error is not None
    assert reply.error.detail == MARKER
    unreadable = encode_error_reply(None, "r1", RequestRejected(Reason.NOT_DECRYPTED, "no key"))
    assert decode_reply(unreadable, KEYS).status == "error"
    with pytest.raises(DecryptionFailed):
        decode_reply(encode_error_reply("ada", "r1", rejected), KEYS)


def test_a_client_without_keys_says_so() -> None:
    with pytest.raises(DecryptionFailed, match="no keys here"):
        decode_reply(encode_reply(read(sent()), Message("hi"), {}, 1))


def test_the_limit_holds_for_what_travels() -> None:
    text = "x" * (MAX_BODY_BYTES * 3 // 4 - 400)
    assert decode_request(arrived(sent(text=text)), TOPOLOGY, KEYS, WIDEST).message.text == text
    with pytest.raises(MisuseError, match="the limit is"):
        sent(text="x" * (MAX_BODY_BYTES * 3 // 4))
    assert refused(sent(), body=b" " * (MAX_BODY_BYTES + 1)).reason is Reason.BODY_TOO_LARGE


def test_a_replay_under_a_new_id_is_encrypted_anew_and_one_under_its_own_is_not_touched() -> None:
    outgoing = sent()
    letter = read_dead_letter(outgoing)
    again = replayed(TOPOLOGY, arrived(outgoing), letter, run_again=True, keys=KEYS)
    assert again.properties.message_id == new_id("r1")
    assert read(again).message.text == MARKER
    assert replayed(TOPOLOGY, arrived(outgoing), letter).body == outgoing.body
    with pytest.raises(DecryptionFailed, match="not set here"):
        replayed(TOPOLOGY, arrived(outgoing), letter, run_again=True)


def test_operators_read_and_move_what_is_plain_as_it_is() -> None:
    plain = sent(keys=None).body
    assert request_in_plain(plain, "r1", KEYS) == reseal_request(plain, "r1", "r2", None) == plain
    assert request_in_plain(b"\xff", "r1", KEYS) == b"\xff"
