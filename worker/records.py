"""What a context looks like as stored bytes: one main record and one record per turn, both JSON.

The layout carries a number, so that a later version can read an earlier one's contexts.
"""

from collections.abc import Mapping
from time import time_ns
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interfaces.context import Context, TurnRecord
from interfaces.data_model import JsonObject
from interfaces.envelope import first_fault
from interfaces.errors import Reason, RequestRejected
from interfaces.limits import Limits, require_size

LAYOUT: Final = 1


class MainRecord(BaseModel):
    """Everything of a context that is not a turn."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    layout: int = Field(default=LAYOUT, ge=LAYOUT, le=LAYOUT)
    created_at: int
    updated_at: int
    misc: JsonObject = Field(default_factory=dict)
    framework_data: JsonObject = Field(default_factory=dict)


def read_context(ctx_id: str, version: int, main: bytes | None, turns: Mapping[int, bytes]) -> Context:
    """The stored context, new where `main` is `None`. Raises `RequestRejected(context-invalid)`."""
    try:
        record = MainRecord.model_validate_json(main) if main is not None else _new_main()
        records = {number: read_turn(turn) for number, turn in turns.items()}
    except ValidationError as error:
        raise RequestRejected(
            Reason.CONTEXT_INVALID,
            "what is stored for this dialog cannot be read",
            internal=f"stored context {ctx_id!r}: {first_fault(error)}",
        ) from error
    return Context(
        id=ctx_id,
        current_turn_id=version,
        created_at=record.created_at,
        updated_at=record.updated_at,
        misc=record.misc,
        framework_data=record.framework_data,
        requests={number: turn.request for number, turn in records.items() if turn.request is not None},
        responses={number: turn.response for number, turn in records.items() if turn.response is not None},
        labels={number: turn.label for number, turn in records.items() if turn.label is not None},
    )


def read_turn(stored: bytes) -> TurnRecord:
    """One stored turn. Raises pydantic's `ValidationError`."""
    return TurnRecord.model_validate_json(stored)


def write_main(context: Context) -> bytes:
    """The main record of a context. Raises `ValueError` where misc or framework data is not JSON."""
    record = MainRecord.model_construct(
        layout=LAYOUT,
        created_at=context.created_at,
        updated_at=time_ns(),
        misc=context.misc,
        framework_data=context.framework_data,
    )
    return record.model_dump_json().encode()


def write_turn(context: Context, turn_id: int) -> bytes:
    """One turn of a context. Raises `ValueError` where a message is not JSON."""
    record = TurnRecord(
        request=context.requests.get(turn_id),
        response=context.responses.get(turn_id),
        label=context.labels.get(turn_id),
    )
    return record.model_dump_json().encode()


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
