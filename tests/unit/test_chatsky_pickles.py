"""Pickles that do more than hold plain data are refused before they do it."""

import base64
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.nested_loops import nested_loops_prevented
from worker.chatsky.pickles import MAX_BYTES, Missing, unpickle_plain

with nested_loops_prevented():
    from chatsky.slots.slots import SlotNotExtracted

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda parts: st.lists(parts) | st.tuples(parts, parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)


def encoded(data: bytes) -> str:
    return base64.encodebytes(data).decode()  # as Chatsky does


@given(plain, st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    assert unpickle_plain(encoded(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int) -> None:
    value = {"a": [1, 2.5, True, None, "é", -5, 2**70], "b": ("x",), "c": {}}
    assert unpickle_plain(encoded(pickle.dumps(value, protocol))) == value


def test_sets_are_plain() -> None:
    assert unpickle_plain(encoded(pickle.dumps([{1, 2}, frozenset("a")]))) == [{1, 2}, frozenset("a")]


def test_the_one_class_of_chatsky_becomes_a_stand_in() -> None:
    value = unpickle_plain(encoded(pickle.dumps(SlotNotExtracted("no match"))))
    assert isinstance(value, Missing)
    assert value.reason == "no match"


class Calls:
    """Pickled, it asks for a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


TOUCH = b"touch %b"

HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "os.system": lambda path: pickle.dumps(Calls(os.system, (TOUCH % path).decode())),
    "inside of plain data": lambda path: pickle.dumps({"a": [1, Calls(os.system, (TOUCH % path).decode())]}),
    "eval": lambda path: pickle.dumps(Calls(eval, f"open({path.decode()!r}, 'w').close()")),
    "exec": lambda path: pickle.dumps(Calls(exec, f"open({path.decode()!r}, 'w').close()")),
    "getattr": lambda path: pickle.dumps(Calls(getattr, "", "join")),
    "protocol 0": lambda path: b"cposix\nsystem\n(S'touch " + path + b"'\ntR.",
    "INST": lambda path: b"(S'touch " + path + b"'\niposix\nsystem\n.",
    "OBJ": lambda path: b"(cposix\nsystem\nS'touch " + path + b"'\no.",
    "NEWOBJ": lambda path: b"\x80\x02cpathlib\nPath\n(X" + struct.pack("<I", len(path)) + path + b"t\x81.",
    "BUILD": lambda path: b"\x80\x04\x8c\x13chatsky.slots.slots\x8c\x10SlotNotExtracted\x93)R}b.",
    "a dotted name": lambda path: b"\x80\x04\x8c\x13chatsky.slots.slots\x8c\x19SlotNotExtracted.__init__\x93.",
    "an attribute of the module": lambda path: b"\x80\x04\x8c\x13chatsky.slots.slots\x8c\x06reduce\x93.",
    "EXT1": lambda path: b"\x80\x02\x82\x01.",
    "EXT4": lambda path: b"\x80\x02\x84\xff\xff\xff\x7f.",
    "PERSID": lambda path: b"Pid\n.",
    "BINPERSID": lambda path: b"\x80\x02X\x02\x00\x00\x00idQ.",
    "NEXT_BUFFER": lambda path: b"\x80\x05\x97.",
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_no_pickle_runs_code(make: Callable[[bytes], bytes], tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(ValueError, match=r"it (holds a|is no plain data|refers)"):
        unpickle_plain(encoded(make(bytes(touched))))
    assert not touched.exists()


def test_these_pickles_are_dangerous_elsewhere(tmp_path: Path) -> None:
    """So the test above shows something."""
    for name in ("os.system", "inside of plain data", "eval", "protocol 0", "INST", "OBJ"):
        touched = tmp_path / name.replace(" ", "-")
        pickle.loads(HOSTILE[name](bytes(touched)))  # noqa: S301 - what this is about
        assert touched.exists(), name


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def laughs(levels: int) -> bytes:
    """A list of two references to a list of two references to..."""
    level = b"".join(b"]\x94(h%bh%be" % (bytes([n]), bytes([n])) for n in range(levels))
    return b"\x80\x04]\x94" + level + b"."


GIB = struct.pack("<Q", 1 << 30)

LARGE = {
    "a byte array of a claimed length": b"\x80\x05\x96" + GIB + b".",
    "a text of a claimed length": b"\x80\x04\x8d" + GIB + b".",
    "bytes of a claimed length": b"\x80\x04\x8e" + GIB + b".",
    "a frame of a claimed length": b"\x80\x04\x95" + GIB + b"N.",
    "an integer of a claimed length": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a memo with one entry far out": b"\x80\x02]r\xff\xff\xff\x0f.",
    "the same in text": b"(lp268435455\n.",
    "lists of lists of lists": laughs(60),
    "one text many times": b"\x80\x04X"
    + struct.pack("<I", 50_000)
    + b"a" * 50_000
    + b"\x94("
    + b"h\x00" * 50_000
    + b"l.",
    "nested too deep": nested(100_000),
    "itself": b"\x80\x04]\x94h\x00a.",
    "too many bytes": pickle.dumps("a" * MAX_BYTES),
    "too many characters": b"a" * 3 * MAX_BYTES,
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_no_pickle_takes_more_memory_than_a_few_times_its_size(data: bytes) -> None:
    text = encoded(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^it "):
            unpickle_plain(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MAX_BYTES


@pytest.mark.parametrize(
    "text", ["", "!", "gASV", encoded(b""), encoded(b"."), encoded(b"\x80\x04"), "é" * 10, "\ud800"]
)
def test_what_is_no_pickle_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        unpickle_plain(text)


@given(st.binary() | plain.map(pickle.dumps).flatmap(lambda data: st.integers(0, len(data)).map(lambda n: data[:n])))
def test_broken_pickles_raise_nothing_else(data: bytes) -> None:
    with suppress(ValueError):
        unpickle_plain(encoded(data))
