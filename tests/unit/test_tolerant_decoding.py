"""Headers of every kind survive decoding and encoding: whatever comes in leaves as the same value."""

import struct

import pytest
from pamqp import commands

from interfaces.brokers import tolerant_decoding
from interfaces.brokers.tolerant_decoding import MAX_DEPTH, RawValue

tolerant_decoding.install()


def entry(key: bytes, kind: bytes, content: bytes) -> bytes:
    return bytes([len(key)]) + key + kind + content


def sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def arrays(depth: int) -> bytes:
    """The content of an array that holds an array, and so on."""
    content = b""
    for _ in range(depth):
        content = b"A" + sized(content)
    return content


def tables(depth: int) -> bytes:
    """The content of a table that holds a table, and so on."""
    content = b""
    for _ in range(depth):
        content = entry(b"a", b"F", sized(content))
    return content


HEADERS = {
    "none": b"",
    "a double": entry(b"d", b"d", struct.pack(">d", 0.1)),
    "a double beyond 32 bits": entry(b"d", b"d", struct.pack(">d", 1e300)),
    "the smallest integer": entry(b"l", b"l", struct.pack(">q", -(2**63))),
    "text": entry(b"S", b"S", sized("grün".encode())),
    "text that is not UTF-8": entry(b"S", b"S", sized(b"\xff\xfe")),
    "bytes": entry(b"x", b"x", sized(b"\x00\xff")),
    "a key that is not UTF-8": entry(b"\xff\xfe", b"t", b"\x01"),
    "a key of 255 bytes": entry(b"k" * 255, b"t", b"\x00"),
    "keys in another order": entry(b"b", b"V", b"") + entry(b"a", b"V", b""),
    "a timestamp in microseconds": entry(b"T", b"T", struct.pack(">Q", 1_763_882_972_000_000)),
    "nested": entry(b"F", b"F", sized(entry(b"A", b"A", sized(b"t\x01V")) + entry(b"b", b"t", b"\x01"))),
    "arrays at the limit": entry(b"A", b"A", sized(arrays(MAX_DEPTH))),
    "arrays beyond the limit": entry(b"A", b"A", sized(arrays(MAX_DEPTH + 1))),
    "as many arrays as a frame holds": entry(b"A", b"A", sized(arrays(26_000))),
    "as many tables as a frame holds": entry(b"F", b"F", sized(tables(18_000))),
}


def decoded(headers: bytes) -> commands.Basic.Properties:
    """Basic properties that have nothing but these headers, as they come from the wire."""
    properties = commands.Basic.Properties()
    properties.unmarshal(commands.Basic.Properties.flags["headers"], sized(headers))
    return properties


@pytest.mark.parametrize("headers", HEADERS.values(), ids=list(HEADERS))
def test_headers_are_encoded_to_the_bytes_they_were_decoded_from(headers: bytes) -> None:
    flags = commands.Basic.Properties.flags["headers"]
    assert decoded(headers).marshal() == struct.pack(">H", flags) + sized(headers)


def test_a_single_precision_number_leaves_as_the_same_number_in_double_precision() -> None:
    again = decoded(decoded(entry(b"f", b"f", struct.pack(">f", 0.5))).marshal()[6:])
    assert again.headers == {"f": 0.5}


def test_what_is_nested_deeper_than_the_limit_stays_bytes() -> None:
    headers = decoded(HEADERS["as many arrays as a frame holds"]).headers
    assert headers is not None
    level = headers["A"]
    for _ in range(MAX_DEPTH - 1):
        assert isinstance(level, list)
        [level] = level
    assert level == [RawValue(b"A" + sized(arrays(26_000 - MAX_DEPTH)))]
