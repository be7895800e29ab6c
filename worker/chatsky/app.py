"""`ChatskyApp`: one turn of a Chatsky pipeline, from what was loaded to what is to be committed.

The pipeline runs as it is, `_run_pipeline` and all, in a copy whose context storage is this turn; so any number of turns
run side by side and an attempt that fails leaves nothing behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatsky import Pipeline
from chatsky.context_storages.database import DBContextStorage

from interfaces.bridge import to_chatsky
from interfaces.context import Context, TurnRecord
from interfaces.errors import Reason, RequestRejected
from interfaces.messages import Message
from worker.chatsky.dialog import Dialog, ReadTurns
from worker.chatsky.storage import TurnStorage
from worker.chatsky.turn_context import make_pipelines_use_it
from worker.stores import ContextStore, Loaded

make_pipelines_use_it()


@dataclass(frozen=True, slots=True)
class ChatskyApp:
    """A bot that is a Chatsky pipeline."""

    pipeline: Pipeline

    @property
    def history(self) -> int:
        """How many of the last turns are to be loaded with a context: what the pipeline's `partial_read_config` says."""
        wanted = self._storage._subscripts.values()  # noqa: SLF001 - Chatsky has no other way to read it
        return max((number for number in wanted if isinstance(number, int)), default=1)

    async def run(
        self,
        ctx_id: str,
        loaded: Loaded,
        message: Message,
        update_ctx_misc: dict[str, Any] | None,
        *,
        store: ContextStore,
        read_turns: ReadTurns,
        max_turns: int | None,
        interface: Any,
    ) -> tuple[Context, Mapping[int, bytes]]:
        """Run one turn; the context with this turn in it, and the records of older turns that the pipeline changed.

        `interface` is what the bot finds as `ctx.pipeline.messenger_interface`. Raises `RequestRejected` where the
        pipeline leaves what cannot be stored, and whatever the bot raises.
        """
        dialog = Dialog(ctx_id, loaded, read_turns, max_turns)
        await dialog.open()
        storage = TurnStorage(store, dialog=dialog, like=self._storage, max_turns=max_turns)
        pipeline = self.pipeline.model_copy(update={"context_storage": storage, "messenger_interface": interface})
        await pipeline._run_pipeline(to_chatsky(message), ctx_id, update_ctx_misc)  # noqa: SLF001 - the seed's runner
        return _context(dialog), {n: dialog.turn_record(n) for n in dialog.changed if n != loaded.version + 1}

    @property
    def _storage(self) -> DBContextStorage:
        return self.pipeline.context_storage


def _context(dialog: Dialog) -> Context:
    """What the pipeline has left, as the context that is committed."""
    turn_id, info = dialog.version + 1, dialog.info
    try:
        if info is None or info.current_turn_id != turn_id:
            left = "stored nothing" if info is None else f"left current_turn_id at {info.current_turn_id}"
            raise ValueError(f"the pipeline {left}; this is turn {turn_id}")
        record = TurnRecord.model_validate(dialog.turn(turn_id))
        framework_data = dialog.framework_data(turn_id)
    except ValueError as error:
        detail = "the dialog's data cannot be stored"
        raise RequestRejected(Reason.REPLY_INVALID, detail, internal=str(error)) from error
    context = Context(
        id=dialog.ctx_id,
        current_turn_id=turn_id,
        created_at=info.created_at,
        misc=info.misc,
        framework_data=framework_data,
    )
    for table, item in (
        (context.requests, record.request),
        (context.responses, record.response),
        (context.labels, record.label),
    ):
        if item is not None:
            table[turn_id] = item
    return context
