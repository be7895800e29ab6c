"""Writes an input as a file of the corpus, so that what fuzzing has found becomes a test by naming its outcome."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from interfaces.brokers.tolerant_decoding import RawText


def corpus_file(
    why: str, expected: str, body: bytes, properties: Mapping[str, Any], routing_key: str | None = None
) -> str:
    """The TOML text of a file for `tests/corpus`."""
    lines = [f"why = {quoted(why)}", f"expected = {quoted(expected)}"]
    if routing_key is not None:
        lines.append(f"routing_key = {_value(routing_key)}")
    lines.append(f"body = {_pieces(body)}")
    if properties:
        lines.append("\n[properties]")
        lines += [f"{name} = {_value(value)}" for name, value in properties.items()]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A TOML string, literal where that can be."""
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _pieces(raw: bytes) -> str:
    try:
        return quoted(raw.decode())
    except UnicodeDecodeError:
        return f'{{hex = "{raw.hex()}"}}'


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case datetime():
            return str(int(value.timestamp()))
        case RawText():
            return _pieces(value.encode())
        case str():
            return quoted(value)
        case bytes() | bytearray():
            return f"{{bytes = {_pieces(bytes(value))}}}"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{quoted(str(key))} = {_value(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"{value!r} cannot be written to a corpus file")
