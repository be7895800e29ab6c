"""Whatever AMQP can carry comes back from a line of JSON as it was, and a file may hold anything."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.properties import to_amqp
from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp, RawValue
from interfaces.envelope import DIRECT_REPLY
from worker.dead_letters import read_dead_letter
from worker.dead_lines import read_line, write_line

ODD_TEXT = RawText(b"\xff\xfe".decode(errors="surrogateescape"))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just(ODD_TEXT)
moments = st.integers(0, 2**32 - 1).map(lambda second: datetime.fromtimestamp(second, UTC)) | st.integers(
    2**32, 2**64 - 1
).map(RawTimestamp.of)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    texts,
    moments,
    st.binary(max_size=20).map(bytearray),
    st.decimals(-10_000, 10_000, places=2),
    st.just(RawValue(b"I\0\0\0\1")),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("$x"), inner, max_size=3),
    max_leaves=8,
)


def line_of(message: Outgoing) -> str:
    return write_line(message, read_dead_letter(message))


@given(
    headers=st.none() | st.dictionaries(texts | st.just("$x"), values, max_size=4),
    body=st.binary(),
    key=texts,
    message_id=st.none() | texts,
    timestamp=st.none() | moments,
    priority=st.none() | st.integers(0, 255),
)
def test_a_line_gives_back_what_it_was_made_of(
    headers: dict[str, Any] | None,
    body: bytes,
    key: str,
    message_id: str | None,
    timestamp: datetime | None,
    priority: int | None,
) -> None:
    properties = Properties(headers=headers, message_id=message_id, timestamp=timestamp, priority=priority)
    line = line_of(Outgoing("ns.dead", key, body, properties))
    assert line.isascii()
    assert "\n" not in line
    read = read_line(line)
    assert (read.body, read.routing_key) == (body, key)
    assert read.properties == properties
    if message_id:
        assert to_amqp(read.properties).marshal() == to_amqp(properties).marshal()
    assert line_of(read) == line


def test_numbers_that_json_has_not_come_back() -> None:
    read = read_line(line_of(Outgoing("", "", b"", Properties(headers={"a": float("inf"), "b": Decimal("1.50")}))))
    assert read.properties.headers == {"a": float("inf"), "b": Decimal("1.50")}


def test_a_line_tells_readers_what_it_is_about_and_keeps_plain_properties_plain() -> None:
    record = json.loads(line_of(Outgoing("", "", b"hi", Properties(message_id="m", headers={"mine": [1, "x"]}))))
    assert record["about"]["request_id"] == "m"
    assert record["properties"] == {"message_id": "m", "headers": {"mine": [1, "x"]}}
    assert base64.b64decode(record["body"]) == b"hi"


def line(**changes: Any) -> str:
    return json.dumps({"version": 1, "routing_key": "", "properties": {}, "body": ""} | changes)


def deep(levels: int) -> Any:
    nested: Any = 1
    for _ in range(levels):
        nested = [nested]
    return nested


def test_the_shortest_line_is_a_bare_message() -> None:
    assert read_line(line()) == Outgoing("", "", b"", Properties())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        ("[]", "not an exported dead letter"),
        (line(version=2), "not an exported dead letter"),
        (line(properties=[]), "properties must be"),
        (line(properties={"nonsense": 1}), "properties must be"),
        (line(properties={"message_id": 5}), "property message_id is no str"),
        (line(properties={"priority": True}), "property priority is no int"),
        (line(properties={"priority": 300}), "AMQP cannot carry"),
        (line(properties={"message_id": "x" * 256}), "AMQP cannot carry"),
        (line(properties={"headers": {"x" * 256: 1}}), "AMQP cannot carry"),
        (line(properties={"headers": {"a": 2**63}}), "64 bits"),
        (line(properties={"headers": {"a": deep(100)}}), "nested deeper"),
        (line(properties={"headers": {"a": {"$what": 1}}}), "$what cannot be read"),
        (line(properties={"headers": {"a": {"$text": 1}}}), "$text cannot be read"),
        (line(properties={"headers": {"a": {"$text": "eA==", "b": 1}}}), "must stand alone"),
        (line(properties={"headers": {"a": {"$timestamp": -1}}}), "$timestamp cannot be read"),
        (line(properties={"headers": {"a": {"$decimal": "x"}}}), "$decimal"),
        (line(properties={"headers": {"$table": [[1, 2]]}}), "no text"),
        (line(properties={"headers": {"$table": [1]}}), "[key, value]"),
        (line(properties={"message_id": "\ud800"}), "not Unicode"),
        (line(properties={"reply_to": DIRECT_REPLY}), "only for who asks"),
        (line(routing_key=5), "routing_key"),
        (line(routing_key="x" * 256), "routing_key"),
        (line(body="!"), ""),
        (line(body=5), "base64"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(text: str | bytes, fault: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is looked at
        read_line(text)
    assert fault in str(raised.value)
