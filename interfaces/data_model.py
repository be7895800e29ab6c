"""The rules by which models become JSON: compact, unknown fields kept, and nothing pickled in either direction.

Values nobody declared (extra fields, `misc`, annotations) may be anything in memory; writing them is refused, naming
the key, when they are not JSON. Chatsky's pickled fields are refused when read and cannot be written.
Messages, attachments and contexts are built on this.
"""

import math
from functools import cache
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticSerializationError, to_jsonable_python

PICKLED_FIELDS = "__pickled_extra_fields__"
"""The key by which Chatsky's JSON names the values beside it that are pickles."""

MAX_DEPTH = 100
"""Levels a free-form value may be nested: pydantic reads no more than 200, the body around the value included, and what
is written must be readable again."""

_PLAIN = frozenset({str, int, bool, type(None)})


class _NotJsonError(Exception):
    """Collects on its way up where the value is: a path built on the way down costs its length for every value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str | int] = []


def _json_value(value: Any, depth: int) -> Any:
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth > MAX_DEPTH:
        raise _NotJsonError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return _json_items(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return list(_json_items(dict(enumerate(value)), depth).values())
    if isinstance(value, float):
        raise _NotJsonError(str(value))
    if isinstance(value, bytes | bytearray):
        raise _NotJsonError(f"{len(value)} {type(value).__name__}")  # They may be what somebody said; this is logged.
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError) as error:
        raise _NotJsonError(str(error)) from error


def _json_items(items: dict[Any, Any], depth: int) -> dict[Any, Any]:
    written: dict[Any, Any] = {}
    for key, item in items.items():
        if type(key) is not int and (not isinstance(key, str) or key == PICKLED_FIELDS):
            raise _NotJsonError(f"{key!r:.60} cannot be a key")
        try:
            written[key] = item if type(item) in _PLAIN else _json_value(item, depth + 1)
        except _NotJsonError as error:
            error.path.append(key)
            raise
    return written


def json_object(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` with everything in it as JSON. Raises `PydanticSerializationError`, which names the key."""
    try:
        return _json_items(value, 0)
    except _NotJsonError as error:
        where = "".join(f"[{key!r:.60}]" for key in reversed(error.path[-5:])) or "the top"
        raise PydanticSerializationError(f"the value at {where} cannot be written as JSON: {error}") from error


def _refuse_pickled(value: dict[str, Any]) -> dict[str, Any]:
    if PICKLED_FIELDS in value:
        raise PydanticCustomError("unsafe_payload", "pickled fields are never read (`{key}`)", {"key": PICKLED_FIELDS})
    return value


JsonObject = Annotated[
    dict[str, Any], AfterValidator(_refuse_pickled), PlainSerializer(json_object, return_type=dict, when_used="json")
]
"""A dictionary that may hold anything in memory and must be JSON when it is written.

A date, a UUID, an enum, a model are written as pydantic writes them and come back as that JSON. Anything else, bytes
and NaN included, raises `PydanticSerializationError`, which names the key.
"""


class DataModel(BaseModel):
    """A model that keeps fields it does not know. Its JSON leaves out what is `None` by default and still is."""

    # What was said must not get into logs by way of an error.
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    @model_validator(mode="after")
    def _extra_is_not_pickled(self) -> Self:
        if self.__pydantic_extra__:
            _refuse_pickled(self.__pydantic_extra__)
        return self

    @model_serializer(mode="wrap", when_used="json")
    def _compact(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Before `write`, which would fail on such values without saying where they are.
        extra = json_object(self.__pydantic_extra__) if self.__pydantic_extra__ else {}
        may_be_left_out = _none_by_default(type(self))
        written: dict[str, Any] = write(self)
        return {
            name: extra.get(name, value)
            for name, value in written.items()
            if value is not None or name not in may_be_left_out
        }


@cache
def _none_by_default(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if field.default is None)
