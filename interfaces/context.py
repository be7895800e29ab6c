"""`Context`: one dialog as a handler sees it, with the last turns in memory and older ones loaded when asked for.

It follows Chatsky's `Context`, but is plain data: it never saves itself, and what it does not hold it asks of a
function its owner gives it. The worker builds one for each turn; interfaces read the reply from it.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from interfaces.data_model import JsonObject
from interfaces.errors import MisuseError
from interfaces.messages import DataAttachment, Message
from interfaces.turn_records import NodeLabel, RunningTurn, TurnLoader, TurnRecord
from interfaces.turns import Turns

if TYPE_CHECKING:
    from interfaces.messengers import MessengerInterfaceWithAttachments

Item = TypeVar("Item")


class ContextError(MisuseError):
    """A context was asked for something it cannot have yet."""


_BY_TURN = {"requests": "request", "responses": "response", "labels": "label"}  # and what a turn's record calls it


@dataclass(slots=True)
class _Unstored:
    """What a context has beside its fields."""

    held: set[int]
    """Turns that need no loading: they came with the context, or the store was asked for them."""
    read: Callable[[], Mapping[int, TurnRecord]] | None = None
    """Reads the turns that came as they are stored, until one is asked for."""
    running: RunningTurn | None = None
    """The turn that runs, for as long as the others are not read."""
    request_id: str | None = None
    load_turns: TurnLoader | None = None
    interface: "MessengerInterfaceWithAttachments | None" = None
    reply: bytes | None = None
    is_repeated: bool = False


class Context(BaseModel):
    """One dialog. Handlers read the turns and change `misc`; what they leave in it is committed with the turn."""

    id: str = Field(default_factory=lambda: str(uuid4()), frozen=True)
    labels: dict[int, NodeLabel] = Field(default_factory=dict)
    """Labels in memory, by turn id; the first is that of turn 0."""
    requests: dict[int, Message] = Field(default_factory=dict)
    """Requests in memory, by turn id; the first is that of turn 1."""
    responses: dict[int, Message] = Field(default_factory=dict)
    """Responses in memory, by turn id; the first is that of turn 1."""
    misc: JsonObject = Field(default_factory=dict)
    """Whatever the handler wants to remember between turns; it must be JSON when the turn is committed."""
    framework_data: JsonObject = Field(default_factory=dict)
    """What the framework running the pipeline remembers between turns."""
    current_turn_id: int = 0
    """Id of the last turn, the running one included."""
    created_at: int = Field(default_factory=time_ns, frozen=True)
    """When the context was created, in nanoseconds since the epoch."""
    updated_at: int = Field(default_factory=time_ns)
    """When its last turn was committed, in nanoseconds since the epoch."""

    # A slot, not one of pydantic's private attributes: those are looked up by name in Python, many times in a turn.
    __slots__ = ("_unstored",)

    if TYPE_CHECKING:
        _unstored: _Unstored

    def model_post_init(self, _context: Any, /) -> None:
        """Note which turns the context was made with."""
        object.__setattr__(self, "_unstored", _Unstored({*self.requests, *self.labels, *self.responses}))

    @classmethod
    def stored(cls, fields: dict[str, Any], read: Callable[[], Mapping[int, TurnRecord]]) -> Self:
        """A context with these fields, which are checked. For whoever runs the turn.

        Its turns in memory are read when one is asked for: most turns of a bot look at none. What `read` raises, the
        bot gets.
        """
        context = cls.__new__(cls)
        # What `model_construct` does, for a tenth of what it takes to ask each field for its default and its aliases.
        object.__setattr__(context, "__dict__", fields)
        object.__setattr__(context, "__pydantic_fields_set__", set(fields))
        object.__setattr__(context, "__pydantic_extra__", None)
        object.__setattr__(context, "__pydantic_private__", None)
        object.__setattr__(context, "_unstored", _Unstored(set(), read))
        return context

    def begin_turn(self, turn_id: int, request: Message) -> None:
        """Make it the last turn, with its request. For whoever runs the turn."""
        if self._unstored.read is not None:
            self.__dict__["current_turn_id"] = turn_id  # Through pydantic it takes five calls more.
            self._unstored.running = RunningTurn(request)
        else:
            self.current_turn_id = turn_id
            self.requests[turn_id] = request

    def answer_turn(self, response: Message) -> None:
        """Set the response of the last turn. For whoever runs the turn."""
        if (running := self._unstored.running) is not None:
            running.response = response
        else:
            self.responses[self.current_turn_id] = response

    def turn(self, turn_id: int) -> RunningTurn:
        """One turn in memory, to be stored."""
        if (running := self._unstored.running) is not None and turn_id == self.current_turn_id:
            return running
        return RunningTurn(self.requests.get(turn_id), self.responses.get(turn_id), self.labels.get(turn_id))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BY_TURN:
            self._read_stored()
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # or every misspelt attribute would be one

        def __getattr__(self, name: str) -> Any:
            if name in _BY_TURN:
                self._read_stored()
                return self.__dict__[name]
            return super().__getattr__(name)

    def _read_stored(self) -> None:
        beside = self._unstored
        if beside.read is not None:
            turns: dict[int, TurnRecord | RunningTurn] = dict(beside.read())
            beside.held.update(turns)
            if beside.running is not None:
                turns[self.current_turn_id] = beside.running
            for name, part in _BY_TURN.items():
                items = ((number, getattr(turn, part)) for number, turn in turns.items())
                self.__dict__.setdefault(name, {number: item for number, item in items if item is not None})
            beside.read = beside.running = None

    @model_serializer(mode="wrap")
    def _with_stored(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        self._read_stored()
        written: dict[str, Any] = write(self)
        return written

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        self._read_stored()
        yield from super().__iter__()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        self._read_stored()
        return super().__repr_args__()

    def __getstate__(self) -> dict[Any, Any]:
        self._read_stored()
        return {**super().__getstate__(), "unstored": self._unstored}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        object.__setattr__(self, "_unstored", state["unstored"])

    def __eq__(self, other: object) -> bool:
        for each in (self, other):
            if isinstance(each, Context):
                each._read_stored()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as every model that can change

    @classmethod
    def answered(cls, ctx_id: str, reply: bytes, *, turn: int) -> Self:
        """A context that stands for a turn committed before: it has its reply and nothing else."""
        context = cls(id=ctx_id, current_turn_id=turn)
        context.commit(reply)
        context._unstored.is_repeated = True
        return context

    def connect(
        self, request_id: str, load_turns: TurnLoader, interface: "MessengerInterfaceWithAttachments | None" = None
    ) -> None:
        """Tell which request is running, where older turns come from, and through which interface it came. For whoever
        runs the turn."""
        beside = self._unstored
        beside.request_id, beside.load_turns, beside.interface = request_id, load_turns, interface

    def commit(self, reply: bytes) -> None:
        """Note that the turn is committed with this reply body. For whoever runs the turn."""
        self._unstored.reply = reply

    @property
    def committed_reply(self) -> bytes | None:
        """The reply body as it was committed, for the interface that publishes it; `None` before."""
        return self._unstored.reply

    @property
    def is_repeated(self) -> bool:
        """Whether its turn was committed before, so that only the reply goes out again."""
        return self._unstored.is_repeated

    @property
    def request_id(self) -> str | None:
        """Id of the running request, the same whenever its turn is tried again: an idempotency key for side effects.

        `None` outside a worker.
        """
        return self._unstored.request_id

    @property
    def last_label(self) -> NodeLabel | None:
        """Label with the highest turn id in memory, `None` where there is none."""
        return _latest(self.labels)

    @property
    def last_request(self) -> Message:
        """Request with the highest turn id in memory. Raises `ContextError` where there is none."""
        if (running := self._unstored.running) is not None and running.request is not None:
            return running.request
        request = _latest(self.requests)
        if request is None:
            raise ContextError(f"context {self.id!r} has no requests in memory")
        return request

    @property
    def last_response(self) -> Message | None:
        """Response with the highest turn id in memory, `None` where there is none."""
        if (running := self._unstored.running) is not None and running.response is not None:
            return running.response
        return _latest(self.responses)

    @property
    def turns(self) -> Turns:
        """The turns of this dialog, those that are only in the store included."""
        return Turns(self)

    async def attachment_bytes(self, attachment: DataAttachment) -> bytes:
        """The bytes of a file that a user has sent, wherever they are: in the attachment store, or with the messenger.

        Raises `ContextError` outside a worker, `AttachmentError` where they cannot be had, a URL's included, and an
        `Unavailable` where they cannot be had now.
        """
        if self._unstored.interface is None:
            raise ContextError("attachments can be read in a worker alone: this context came through no interface")
        return await attachment.get_bytes(self._unstored.interface)

    async def _hold(self, turn_ids: Sequence[int]) -> None:
        # The running turn is in memory even where its request was added after the context was made.
        running = {self.current_turn_id} & self.requests.keys()
        held, load_turns = self._unstored.held, self._unstored.load_turns
        missing = [n for n in turn_ids if n not in held and n not in running]
        if not missing or load_turns is None:
            return
        for turn_id, turn in (await load_turns(missing)).items():
            # What a handler has set meanwhile is newer than what the store knows.
            if turn.request is not None:
                self.requests.setdefault(turn_id, turn.request)
            if turn.label is not None:
                self.labels.setdefault(turn_id, turn.label)
            if turn.response is not None:
                self.responses.setdefault(turn_id, turn.response)
        held.update(missing)

    def __copy__(self) -> Self:
        return self._with_own_copy(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        self._read_stored()
        return self._with_own_copy(super().__deepcopy__(memo))

    def _with_own_copy(self, copied: Self) -> Self:
        # A copy shares what leads to connections, which cannot be copied.
        object.__setattr__(copied, "_unstored", replace(self._unstored, held=set(self._unstored.held)))
        return copied


def _latest(items: Mapping[int, Item]) -> Item | None:
    return items[max(items)] if items else None
