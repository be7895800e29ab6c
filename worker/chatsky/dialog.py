"""`Dialog`: one stored context as a Chatsky storage sees it, three tables of items by turn id and the main information.

Stored are the same records that handlers use, one per turn with request, response and label, so both kinds of bot read
each other's dialogs. Which ids each table has is kept beside the main information, as ranges: found out anew, it would
cost the length of the dialog at every turn.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, Final, Self

from chatsky.core.ctx_utils import ContextMainInfo, FrameworkData
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from interfaces.data_model import json_object
from interfaces.envelope import first_fault
from interfaces.errors import Reason, RequestRejected
from worker.chatsky.framework_data import read_framework_data, write_framework_data
from worker.chatsky.turn_ids import TurnIds
from worker.records import LAYOUT, MainRecord
from worker.stores import Loaded

TABLES: Final = {"labels": "label", "requests": "request", "responses": "response"}
"""Chatsky's name of a table, and the field of a stored turn that it is."""

FRAMEWORK: Final = "chatsky"
"""Where in a context's framework data all this is."""

ReadTurns = Callable[[Sequence[int]], Awaitable[Mapping[int, bytes]]]


@dataclass(slots=True)
class MainInfo:
    """What Chatsky keeps of a dialog beside its turns: its `ContextMainInfo`, which copies a type adapter when made."""

    current_turn_id: int
    created_at: int
    updated_at: int
    misc: dict[str, Any]
    framework_data: FrameworkData

    @classmethod
    def new(cls) -> Self:
        """That of a dialog that begins."""
        now = time_ns()
        return cls(0, now, now, {}, FrameworkData())

    @classmethod
    def of(cls, info: ContextMainInfo) -> Self:
        """What Chatsky has in `info`."""
        return cls(info.current_turn_id, info.created_at, info.updated_at, info.misc, info.framework_data)

    def for_chatsky(self) -> ContextMainInfo:
        """The same as Chatsky's own type."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return ContextMainInfo.model_construct(**fields, origin_interface=None)


class Dialog:
    """What is stored of a context, read as far as needed, and what a pipeline has changed in it since.

    `read_turns` gives stored turns by id. Raises `RequestRejected(context-invalid)` where what is stored is broken.
    """

    def __init__(self, ctx_id: str, loaded: Loaded | None, read_turns: ReadTurns, max_turns: int | None = None) -> None:
        self.ctx_id = ctx_id
        self.version = loaded.version if loaded else 0
        self.revision = loaded.revision if loaded else 0
        self._read_turns = read_turns
        self._max_turns = max_turns
        self._turns: dict[int, dict[str, Any]] = {}
        self._main: MainRecord | None = None
        self.info: MainInfo | None = None
        """`None` for a new one."""
        self.changed: set[int] = set()
        """Turns that are to be written."""
        if loaded is not None:
            self._keep(loaded.turns)
            if loaded.main is not None:
                self._main, self.info = self._read_main(loaded.main)
        self.ids: dict[str, TurnIds] = {}

    async def open(self) -> None:
        """Find out which ids each table has; to be called first. Costs what others added since Chatsky's last turn."""
        if self._main is None:
            self.ids = {table: TurnIds() for table in TABLES}
            return
        known: dict[str, Any] = self._main.framework_data.get(FRAMEWORK, {}).get("ids", {})
        self.ids = {table: TurnIds(known.get(table, ())) for table in TABLES}
        # A handler adds turns too, and knows nothing of tables.
        others = range(known.get("version", -1) + 1, self.version + 1)
        for turn_id, turn in (await self.turns(others)).items():
            for table, field in TABLES.items():
                if turn.get(field) is not None:
                    self.ids[table].add(turn_id)
        if self._max_turns is not None:
            for ids in self.ids.values():
                ids.drop_below(self.version - self._max_turns + 1)

    async def turns(self, turn_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Turns by id as parsed JSON, those that exist; what is not here yet is read in one call."""
        await self.fetch(turn_ids)
        return {turn_id: self._turns[turn_id] for turn_id in turn_ids if turn_id in self._turns}

    async def fetch(self, turn_ids: Sequence[int]) -> None:
        """Read turns that are not here yet, in one call."""
        missing = [turn_id for turn_id in turn_ids if turn_id not in self._turns]
        if missing:
            self._keep(await self._read_turns(missing))

    async def items(self, table: str, turn_ids: Sequence[int]) -> dict[int, Any]:
        """Items of one table by turn id, as parsed JSON, those that exist."""
        await self.fetch([turn_id for turn_id in turn_ids if turn_id in self.ids[table]])
        return self.items_here(table, turn_ids)

    def items_here(self, table: str, turn_ids: Sequence[int]) -> dict[int, Any]:
        """The same of turns that are here already."""
        field, ids = TABLES[table], self.ids[table]
        turns = {turn_id: self._turns.get(turn_id, {}) for turn_id in turn_ids if turn_id in ids}
        return {turn_id: turn[field] for turn_id, turn in turns.items() if turn.get(field) is not None}

    async def write(self, table: str, items: Mapping[int, Any]) -> None:
        """Set items of one table, parsed JSON by turn id; `None` removes one."""
        if items:
            await self.turns(list(items))  # The other items of these turns stay.
        for turn_id, item in items.items():
            self._turns.setdefault(turn_id, {})[TABLES[table]] = item
            self.changed.add(turn_id)
            if item is None:
                self.ids[table].discard(turn_id)
            else:
                self.ids[table].add(turn_id)

    def turn(self, turn_id: int) -> dict[str, Any]:
        """One turn that was written or read, empty where it was not."""
        return self._turns.get(turn_id, {})

    def turn_record(self, turn_id: int) -> bytes:
        """One turn as it is stored."""
        return to_json({field: item for field, item in self.turn(turn_id).items() if item is not None})

    def framework_data(self, version: int) -> dict[str, Any]:
        """What is stored for the framework with `version`. Raises `ValueError`, which names what is not JSON."""
        ids = {table: ids.ranges for table, ids in self.ids.items()}
        data = write_framework_data(self.info.framework_data if self.info else FrameworkData())
        others = self._main.framework_data if self._main else {}
        return {**others, FRAMEWORK: {**data, "ids": {"version": version, **ids}}}

    def main_record(self, version: int) -> bytes:
        """The main record with `version`. Raises `ValueError`, which names what is not JSON."""
        info = self.info or MainInfo.new()
        record = MainRecord.model_construct(
            layout=LAYOUT,
            created_at=info.created_at,
            updated_at=info.updated_at,
            misc=json_object(info.misc),
            framework_data=self.framework_data(version),
        )
        return record.model_dump_json().encode()

    def _keep(self, turns: Mapping[int, bytes]) -> None:
        for turn_id, turn in turns.items():
            try:
                self._turns.setdefault(turn_id, from_json(turn))
            except ValueError as error:
                raise self._invalid(f"turn {turn_id}: {error}") from error

    def _read_main(self, main: bytes) -> tuple[MainRecord, MainInfo]:
        try:
            record = MainRecord.model_validate_json(main)
            data = read_framework_data(record.framework_data.get(FRAMEWORK, {}))
            info = MainInfo(self.version, record.created_at, record.updated_at, record.misc, data)
        except ValidationError as error:
            raise self._invalid(first_fault(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._invalid(f"framework data: {error!r}") from error
        return record, info

    def _invalid(self, fault: str) -> RequestRejected:
        return RequestRejected(
            Reason.CONTEXT_INVALID,
            "what is stored for this dialog cannot be read",
            internal=f"stored context {self.ctx_id!r}: {fault}",
        )
