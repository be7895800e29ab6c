"""`ChatskyApp`: one turn of a Chatsky pipeline, from what was loaded to what is to be committed.

The pipeline runs as it is, `_run_pipeline` and all, in a copy whose context storage is this turn; so any number of
turns run side by side, and an attempt that fails leaves nothing behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatsky import Pipeline

from interfaces.bridge import to_chatsky
from interfaces.chatsky_downloads import use_own_downloads
from interfaces.context import Context
from interfaces.errors import Reason, RequestRejected
from interfaces.messages import Message
from interfaces.messengers import MessengerInterface
from interfaces.turn_records import TurnRecord
from worker.chatsky.dialog import Dialog
from worker.chatsky.storage import TurnStorage, reading
from worker.chatsky.turn_context import make_pipelines_use_it
from worker.stores import ContextStore, Loaded

make_pipelines_use_it()
use_own_downloads()


@dataclass(frozen=True, slots=True)
class ChatskyApp:
    """A bot that is a Chatsky pipeline."""

    pipeline: Pipeline

    def turns(self, max_turns: int | None, interface: MessengerInterface | None) -> "PipelineTurns":
        """What runs it for a worker, with `interface` as `ctx.pipeline.messenger_interface`."""
        return PipelineTurns(self.pipeline, max_turns, interface)


@dataclass(frozen=True, slots=True)
class PipelineTurns:
    """Runs turns of a pipeline."""

    pipeline: Pipeline
    max_turns: int | None
    interface: MessengerInterface | None

    @property
    def history(self) -> int:
        """How many turns are to be loaded with a context: as many as the pipeline's `partial_read_config` says."""
        wanted = self.pipeline.context_storage._subscripts.values()  # noqa: SLF001 - it can be read nowhere else
        return max((number for number in wanted if isinstance(number, int)), default=1)

    async def run(
        self,
        store: ContextStore,
        ctx_id: str,
        loaded: Loaded,
        message: Message,
        update_ctx_misc: dict[str, Any] | None,
    ) -> tuple[Context, Message | None, Mapping[int, bytes]]:
        """Run one turn on `store`; the context with this turn in it, the reply, and the older turns' records changed.

        The reply is the dialog's last response, as for Chatsky's interfaces: an earlier turn's where this one has none.

        Raises `RequestRejected` where what is stored cannot be read, or what the pipeline leaves cannot be stored, and
        whatever the bot raises.
        """
        dialog = Dialog(ctx_id, loaded, reading(store, ctx_id), self.max_turns)
        await dialog.open()
        own = self.pipeline.context_storage
        storage = TurnStorage(store, dialog=dialog, like=own, max_turns=self.max_turns)
        pipeline = self.pipeline.model_copy(update={"context_storage": storage, "messenger_interface": self.interface})
        await pipeline._run_pipeline(to_chatsky(message), ctx_id, update_ctx_misc)  # noqa: SLF001 - the seed's runner
        context = _context(dialog)
        last = await dialog.items("responses", dialog.ids["responses"][-1:])
        reply = next((Message.model_validate(response) for response in last.values()), None)
        older_turns = {n: dialog.turn_record(n) for n in dialog.changed if n != context.current_turn_id}
        return context, reply, older_turns


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
    if record.request is not None:
        context.requests[turn_id] = record.request
    if record.response is not None:
        context.responses[turn_id] = record.response
    if record.label is not None:
        context.labels[turn_id] = record.label
    return context
