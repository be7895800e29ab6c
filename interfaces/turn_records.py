"""What a dialog has for each turn, and how one is stored. `Context` holds them, the worker reads and writes them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from interfaces.data_model import DataModel
from interfaces.messages import Message


class NodeLabel(BaseModel):
    """Where in a script a dialog is: Chatsky's `AbsoluteNodeLabel`, also validated from (flow name, node name)."""

    model_config = ConfigDict(frozen=True)

    flow_name: str
    node_name: str

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, data: Any) -> Any:
        if isinstance(data, tuple | list) and len(data) == 2:
            return {"flow_name": data[0], "node_name": data[1]}
        return data


class TurnRecord(DataModel):
    """One turn as it is stored. Fields a newer version added are kept, so an older worker does not lose them."""

    request: Message | None = None
    response: Message | None = None
    label: NodeLabel | None = None


@dataclass(slots=True)
class RunningTurn:
    """The same in memory, as a bot has left it: nothing of it is checked before it is stored."""

    request: Message | None
    response: Message | None = None
    label: NodeLabel | None = None


TurnView = tuple[Message | None, NodeLabel | None, Message | None]
"""Request, label and response of one turn; `None` for what it does not have."""

TurnLoader = Callable[[Sequence[int]], Awaitable[Mapping[int, TurnRecord]]]
"""Reads stored turns by id; the ids that do not exist are missing from its answer."""
