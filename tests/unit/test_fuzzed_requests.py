"""Any body with any properties: a request, or refused for a reason, in words that may go into a log and a header.

Here hypothesis makes them, within the time of a test suite; `python -m tests.fuzz` mutates the corpus for as long as it
is told to, and a small run of it is here too.
"""

import asyncio
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.brokers import Delivery, Properties
from interfaces.brokers.properties import from_amqp, to_amqp
from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp, install
from interfaces.data_model import json_object
from interfaces.envelope import decode_request
from interfaces.errors import RequestRejected
from interfaces.topology import Topology, slot
from interfaces.turn_records import TurnRecord
from tests.fuzz.mutation import KEYS, TAGS, Mutator
from tests.fuzz.reproducer import corpus_file
from tests.fuzz.whole_worker import REPLY_QUEUE, TOPOLOGY, run_batch
from tests.hostile_inputs import load
from tests.unit.deliveries import StubChannel

install()

NAMESPACE = Topology("ns")
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(TAGS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
attachments = st.dictionaries(st.sampled_from(KEYS), values, max_size=4).flatmap(
    lambda fields: st.sampled_from(TAGS).map(lambda tag: {**fields, "chatsky_attachment_type": tag})
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=8) | values,
        "attachments": st.lists(attachments, max_size=2),
        "misc": st.dictionaries(st.text(max_size=4), values, max_size=2),
        "origin": st.fixed_dictionaries({}, optional={"interface": st.text(max_size=4), "message": values}),
        "self": values,
    },
)
bodies = st.fixed_dictionaries(
    {"version": st.just(1), "ctx_id": st.just("ctx") | st.text(max_size=210), "message": messages | values},
    optional={"update_ctx_misc": st.dictionaries(st.text(max_size=4), values, max_size=3) | values},
).map(lambda body: json.dumps(body).encode())
short_texts = st.binary(max_size=255).map(lambda raw: RawText(raw.decode(errors="surrogateescape")))
headers = st.dictionaries(
    st.sampled_from(["x-delivery-count", "x-death", "x-switchboard-reason", "a"]),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | short_texts | st.binary(max_size=5).map(bytearray),
    max_size=3,
)
usual = st.sampled_from([None, "", "application/json", "id", "ns.reply.x", "amq.gen-x"])
property_sets = st.builds(
    Properties,
    content_type=usual | short_texts,
    content_encoding=st.none() | short_texts,
    message_id=usual | short_texts,
    correlation_id=usual | short_texts,
    reply_to=usual | short_texts,
    headers=st.none() | headers,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | st.integers(0, 2**64 - 1).map(RawTimestamp.of),
    message_type=st.none() | short_texts,
    app_id=st.none() | short_texts,
)


def delivered(body: bytes, properties: Properties, routing_key: str) -> Delivery:
    return Delivery(body, properties, "ns.requests", routing_key, False, 0, 1, StubChannel())


@given(body=bodies | st.binary(max_size=50), properties=property_sets)
def test_a_request_is_refused_in_printable_words_or_can_be_stored(body: bytes, properties: Properties) -> None:
    try:
        request = decode_request(delivered(body, properties, str(slot("ctx"))), NAMESPACE)
    except RequestRejected as rejected:
        refused: RequestRejected | None = rejected
    else:
        refused = None
        json_object(request.update_ctx_misc or {})
        written = TurnRecord(request=request.message).model_dump_json()
        assert TurnRecord.model_validate_json(written).model_dump_json() == written
    assert refused is None or (refused.detail.isprintable() and len(refused.detail) < 500)


@given(properties=property_sets)
def test_properties_are_the_same_once_they_went_through_their_bytes(properties: Properties) -> None:
    def through_bytes(amqp: Any) -> Any:
        encoded = amqp.marshal()
        received = type(amqp)()
        received.unmarshal(int.from_bytes(encoded[:2], "big"), encoded[2:])
        return received

    once, _ = from_amqp(through_bytes(to_amqp(properties)))
    assert to_amqp(once).marshal() == through_bytes(to_amqp(once)).marshal()


@given(body=st.binary(max_size=50) | st.text(max_size=50).map(str.encode), message_id=short_texts)
def test_what_fuzzing_finds_is_a_file_of_the_corpus(body: bytes, message_id: str) -> None:
    properties = {"message_id": message_id, "priority": 3, "headers": {"a'": [1, "\x7f\n", {"b": bytearray(b"\xff")}]}}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "found.toml"
        path.write_text(corpus_file("Why\nnot", "answered", body, properties))
        found = load(path)
    assert (found.body, found.why) == (body, "Why\nnot")
    assert found.properties["message_id"].encode() == message_id.encode()
    assert found.properties["headers"] == properties["headers"]


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_settles_every_mutant(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    mutator = Mutator(seed, TOPOLOGY, REPLY_QUEUE)
    verdict = asyncio.run(run_batch([mutator.mutant() for _ in range(300)]))
    assert verdict.faults == []
    assert verdict.answered > 0
    assert verdict.reasons.total() > 0
