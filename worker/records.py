"""What a context looks like as stored bytes: one main record and one record per turn, both JSON.

The layout carries a number, so that a later version can read an earlier one's contexts.
"""

from collections.abc import Mapping
from time import time_ns
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from interfaces.context import Context
from interfaces.data_model import JsonObject, json_object
from interfaces.envelope import first_fault
from interfaces.errors import Reason, RequestRejected
from interfaces.limits import Limits, require_size
from interfaces.messages import Message, message_json
from interfaces.turn_records import TurnRecord

LAYOUT: Final = 2
"""Of this record, and in Redis of the whole hash, which has its head in one field since 2 (docs/decisions/0029)."""

OLDEST_LAYOUT: Final = 1
"""Is read, and what is stored next is in `LAYOUT`. This record is the same in both."""


class MainRecord(BaseModel):
    """Everything of a context that is not a turn."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    layout: int = Field(default=LAYOUT, ge=OLDEST_LAYOUT, le=LAYOUT)
    created_at: int
    updated_at: int
    misc: JsonObject = Field(default_factory=dict)
    framework_data: JsonObject = Field(default_factory=dict)


def read_context(ctx_id: str, version: int, main: bytes | None, turns: Mapping[int, bytes]) -> Context:
    """The stored context, new where `main` is `None`; its turns are read when the first of them is asked for.

    Raises `RequestRejected(context-invalid)`, for a turn whoever asks for one.
    """
    try:
        record = MainRecord.model_validate_json(main) if main is not None else _new_main()
    except ValidationError as error:
        raise _unreadable(ctx_id, error) from error
    # `record` is checked, and has all that a context checks of these.
    fields: dict[str, Any] = {
        "id": ctx_id,
        "current_turn_id": version,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "misc": record.misc,
        "framework_data": record.framework_data,
    }

    def read() -> dict[int, TurnRecord]:
        try:
            return {number: read_turn(turn) for number, turn in turns.items()}
        except ValidationError as error:
            raise _unreadable(ctx_id, error) from error

    return Context.stored(fields, read)


def _unreadable(ctx_id: str, error: ValidationError) -> RequestRejected:
    return RequestRejected(
        Reason.CONTEXT_INVALID,
        "what is stored for this dialog cannot be read",
        internal=f"stored context {ctx_id!r}: {first_fault(error)}",
    )


def read_turn(stored: bytes) -> TurnRecord:
    """One stored turn. Raises pydantic's `ValidationError`."""
    return TurnRecord.model_validate_json(stored)


def write_main(context: Context) -> bytes:
    """The main record of a context. Raises `ValueError` where misc or framework data is not JSON."""
    return to_json(
        {
            "layout": LAYOUT,
            "created_at": context.created_at,
            "updated_at": time_ns(),
            "misc": json_object(context.misc),
            "framework_data": json_object(context.framework_data),
        }
    )


def write_turn(context: Context, turn_id: int) -> bytes:
    """One turn of a context. Raises `ValueError` where a message is not JSON."""
    turn = context.turn(turn_id)
    said: dict[str, Any] = {}
    is_as_declared = turn.label is None
    for name, message in (("request", turn.request), ("response", turn.response)):
        if message is not None:
            said[name] = message
            is_as_declared = is_as_declared and isinstance(message, Message)
    if is_as_declared:
        return to_json({name: message_json(message) for name, message in said.items()})
    # Whatever else a bot has put into the context's dictionaries becomes what it must be, or is refused.
    return TurnRecord(**said, label=turn.label).model_dump_json().encode()


def write(
    context: Context, turn_id: int, older_turns: Mapping[int, bytes], limits: Limits
) -> tuple[bytes, Mapping[int, bytes]]:
    """The main record, and this turn's beside those of older turns that were changed.

    Raises `RequestRejected(reply-invalid)` where something is not JSON or too large.
    """
    try:
        main, turns = write_main(context), {**older_turns, turn_id: write_turn(context, turn_id)}
    except ValueError as error:
        detail = "the dialog's data cannot be stored"
        raise RequestRejected(Reason.REPLY_INVALID, detail, internal=str(error)) from error
    require_sizes(main, turns, limits)
    return main, turns


def require_sizes(main: bytes, turns: Mapping[int, bytes], limits: Limits) -> None:
    """Raise `RequestRejected(reply-invalid)` where records are too large to be loaded again with every turn."""
    require_size("what is stored beside the turns", len(main), limits.context_bytes, "max_context_bytes")
    for turn_id, turn in turns.items():
        require_size(f"turn {turn_id} as stored", len(turn), limits.turn_bytes, "max_turn_bytes")


def _new_main() -> MainRecord:
    now = time_ns()
    return MainRecord(created_at=now, updated_at=now)
