"""Reads the pickles of plain data that Chatsky's storages keep, and no others.

Whoever may write to that storage could run code in whoever unpickles it. Here no class is ever found but a stand-in for
the one exception that Chatsky itself pickles, and what a pickle unfolds to is bounded before anybody walks through it.
Used by the import alone.
"""

import binascii
import io
import pickle
import pickletools
from typing import Any, Final, NoReturn

MAX_BYTES: Final = 256 * 1024
"""Of one pickle, and of what it unfolds to, a character or an item counted as one."""

MAX_DEPTH: Final = 100

MISSING: Final = ("chatsky.slots.slots", "SlotNotExtracted")

_PLAIN: Final = frozenset(
    "PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT "  # noqa: SIM905 - as a list it takes fifty lines
    "GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE INT BININT "
    "BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES "
    "BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM "
    "SETITEMS EMPTY_SET ADDITEMS FROZENSET".split()
)
_OF_CLASSES: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "REDUCE"})
_MEMO: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class Missing:
    """Stands for Chatsky's `SlotNotExtracted`."""

    def __init__(self, *reason: Any) -> None:
        self.reason = reason[0][:500] if reason and isinstance(reason[0], str) else ""


def unpickle_plain(encoded: str) -> Any:
    """The value of a pickle in Base64, made of plain data and `Missing`. Raises `ValueError` for every other."""
    if len(encoded) > 2 * MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        data = binascii.a2b_base64(encoded)
    except ValueError as error:
        raise ValueError("it is not Base64") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        _require_plain_opcodes(data)
        value = _Unpickler(io.BytesIO(data)).load()
    except _RefusedError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError(f"it is no pickle: {type(error).__name__}") from error
    _require_bounded(value)
    return value


class _RefusedError(Exception):
    """The pickle is broken, or asks for more than plain data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Missing]:
        if (module, name) == MISSING:
            return Missing
        raise _RefusedError(f"it holds a {module}.{name}"[:200])

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError("it refers to something outside of it")


def _require_plain_opcodes(data: bytes) -> None:
    """Raise `_RefusedError` for a pickle that does more than to build plain data, before it does so.

    A few bytes can make the unpickler allocate gigabytes: for a byte array whose length is only claimed, or for a memo
    with one entry far out. Pickles number their entries in order.
    """
    entries = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _PLAIN | _OF_CLASSES:
                raise _RefusedError(f"it is no plain data: {opcode.name}")
            if opcode.name in _MEMO and int(argument or 0) > entries:
                raise _RefusedError("it is no pickle that Python writes")
            entries += opcode.name in _MEMO or opcode.name == "MEMOIZE"
    except _RefusedError:
        raise
    except Exception as error:  # what a broken pickle raises is nowhere listed
        raise _RefusedError(f"it is no pickle: {type(error).__name__}") from error


def _require_bounded(value: Any) -> None:
    """Raise `ValueError` for a value that is too deep, or, because it holds the same thing many times, too large."""
    pending = [(value, 0)]
    size = 0
    while pending:
        item, depth = pending.pop()
        size += 1
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, int):
            size += item.bit_length() // 8
        elif isinstance(item, dict):
            pending += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set | frozenset):
            pending += [(part, depth + 1) for part in item]
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if size + len(pending) > MAX_BYTES:
            raise ValueError(f"it unfolds to more than {MAX_BYTES} characters")
