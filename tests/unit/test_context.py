"""Contexts: what is in memory, what is loaded on demand, and what of them is JSON."""

import copy
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from interfaces.context import Context, ContextError
from interfaces.messages import Message
from interfaces.turn_records import NodeLabel, RunningTurn, TurnRecord

with mock.patch("nest_asyncio.apply"):  # which would replace asyncio's loops and `run` for every test of the process
    from chatsky.core.node_label import AbsoluteNodeLabel


class Store:
    """Turns 1 to 20, and what was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.socket = threading.Lock()
        """Stands for a connection: it cannot be copied."""

    async def load(self, turn_ids: Sequence[int]) -> Mapping[int, TurnRecord]:
        self.calls.append(list(turn_ids))
        return {n: record(n) for n in turn_ids if 1 <= n <= 20}


FIELDS = {"id": "c", "current_turn_id": 1, "created_at": 1, "updated_at": 2, "misc": {}, "framework_data": {}}
"""What a stored context has beside its turns."""


def record(n: int) -> TurnRecord:
    return TurnRecord(
        request=Message(f"q{n}"), response=Message(f"a{n}"), label=NodeLabel(flow_name="f", node_name=str(n))
    )


def running(store: Store, *, held: Sequence[int] = (19, 20)) -> Context:
    """A context in its 21st turn, with turns `held` in memory."""
    context = Context(
        id="c",
        current_turn_id=21,
        requests={n: Message(f"q{n}") for n in held},
        responses={n: Message(f"a{n}") for n in held},
    )
    context.connect("r-1", store.load)
    context.requests[21] = Message("q21")
    return context


def test_a_new_context_is_empty_with_an_id_of_its_own() -> None:
    context = Context()
    assert (context.id, context.current_turn_id, context.misc, context.framework_data) == (context.id, 0, {}, {})
    assert Context().id != context.id
    assert context.last_response is None
    assert context.last_label is None
    with pytest.raises(ContextError, match="has no requests"):
        _ = context.last_request


def test_last_is_what_has_the_highest_turn_id() -> None:
    context = Context(
        requests={2: Message("b"), 1: Message("a")},
        responses={1: Message("A")},
        labels={0: NodeLabel(flow_name="f", node_name="start")},
    )
    assert context.last_request.text == "b"
    assert context.last_response == Message("A")
    assert context.last_label == NodeLabel(flow_name="f", node_name="start")


def test_id_and_creation_time_do_not_change() -> None:
    context = Context(id="c")
    with pytest.raises(ValidationError, match="frozen"):
        context.id = "d"  # type: ignore[misc]  # what the test is about
    with pytest.raises(ValidationError, match="frozen"):
        context.created_at = 1  # type: ignore[misc]  # what the test is about


def test_a_label_is_chatskys_in_json_and_can_be_given_as_a_pair() -> None:
    label = NodeLabel.model_validate(("flow", "node"))
    assert AbsoluteNodeLabel.model_validate_json(label.model_dump_json()).node_name == "node"
    assert (
        NodeLabel.model_validate_json(AbsoluteNodeLabel(flow_name="flow", node_name="node").model_dump_json()) == label
    )
    with pytest.raises(ValidationError):
        NodeLabel.model_validate("node")


async def test_turns_in_memory_are_not_loaded() -> None:
    store = Store()
    context = running(store)
    assert await context.turns[-1] == (Message("q21"), None, None)
    assert await context.turns[20] == (Message("q20"), None, Message("a20"))
    assert store.calls == []


async def test_all_missing_turns_are_loaded_in_one_call_and_kept() -> None:
    store = Store()
    context = running(store)
    turns = await context.turns[-5:]
    assert [request.text for request, _, _ in turns if request] == ["q17", "q18", "q19", "q20", "q21"]
    assert turns[0] == (Message("q17"), NodeLabel(flow_name="f", node_name="17"), Message("a17"))
    assert await context.turns[-5:] == turns
    assert store.calls == [[17, 18]]
    assert context.responses[17] == Message("a17")


async def test_a_turn_that_does_not_exist_is_asked_for_once_and_has_nothing() -> None:
    store = Store()
    context = running(store)
    assert [await context.turns[0] for _ in range(2)] == [(None, None, None)] * 2
    assert store.calls == [[0]]


async def test_loading_does_not_undo_what_a_handler_has_set() -> None:
    context = running(Store())
    context.responses[3] = Message("corrected")
    assert await context.turns[3] == (Message("q3"), NodeLabel(flow_name="f", node_name="3"), Message("corrected"))


async def test_slices_follow_ranges() -> None:
    context = running(Store())
    assert [r.text for r, _, _ in await context.turns[3:0:-1] if r] == ["q3", "q2", "q1"]
    assert len(await context.turns[:]) == 22
    assert await context.turns[100:] == []


@pytest.mark.parametrize("key", [22, -23])
async def test_a_turn_beyond_the_dialog_is_an_index_error(key: int) -> None:
    with pytest.raises(IndexError):
        await running(Store()).turns[key]


async def test_a_context_without_a_store_has_what_is_in_memory() -> None:
    context = Context(current_turn_id=2, requests={2: Message("b")})
    assert await context.turns[:] == [(None, None, None), (None, None, None), (Message("b"), None, None)]


async def test_a_deep_copy_shares_the_store_and_nothing_else() -> None:
    store = Store()
    context = running(store)
    for copied in (copy.deepcopy(context), context.model_copy(deep=True)):
        copied.misc["a"] = 1
        assert (await copied.turns[5])[0] == Message("q5")
        assert copied.request_id == "r-1"
    assert context.misc == {}
    assert 5 not in context.requests
    assert store.calls == [[5], [5]]


def test_the_request_id_is_for_reading() -> None:
    assert Context().request_id is None
    context = running(Store())
    assert context.request_id == "r-1"
    with pytest.raises(AttributeError):
        context.request_id = "r-2"  # type: ignore[misc]  # what the test is about


def test_a_committed_context_carries_its_reply() -> None:
    assert Context().committed_reply is None
    answered = Context.answered("c", b"{}", turn=7)
    assert (answered.id, answered.current_turn_id, answered.committed_reply) == ("c", 7, b"{}")


def test_a_context_survives_its_json() -> None:
    context = Context(
        id="c", requests={1: Message("q")}, labels={0: NodeLabel(flow_name="f", node_name="n")}, misc={"a": [None]}
    )
    assert Context.model_validate_json(context.model_dump_json()) == context


@pytest.mark.parametrize("field", ["misc", "framework_data"])
def test_misc_and_framework_data_must_be_json_when_written(field: str) -> None:
    context = Context()
    getattr(context, field)["culprit"] = object()
    with pytest.raises(PydanticSerializationError, match="culprit"):
        context.model_dump_json()


def test_a_turn_record_is_compact_and_keeps_what_a_newer_version_added() -> None:
    stored = '{"request":{"text":"q"},"mood":"good"}'
    assert TurnRecord.model_validate_json(stored).model_dump_json() == stored


def test_a_stored_context_is_like_one_that_was_made_with_the_same_fields() -> None:
    stored, made = Context.stored(FIELDS.copy(), dict), Context(**FIELDS)
    assert stored == made
    assert stored.model_dump() == made.model_dump()
    assert stored.model_fields_set == made.model_fields_set == set(FIELDS)
    assert {name for name in Context.model_fields if name not in FIELDS} == {"labels", "requests", "responses"}
    assert (stored.request_id, stored.committed_reply, stored.is_repeated) == (None, None, False)


def test_turns_that_came_stored_are_read_when_one_is_asked_for() -> None:
    reads: list[None] = []

    def read() -> dict[int, TurnRecord]:
        reads.append(None)
        return {1: TurnRecord(request=Message("one"), response=Message("first"))}

    context = Context.stored(FIELDS.copy(), read)
    context.begin_turn(2, Message("two"))
    assert (context.last_request.text, reads) == ("two", [])
    assert context.last_response is not None
    assert (context.last_response.text, len(reads)) == ("first", 1)
    context.answer_turn(Message("second"))
    assert {n: message.text for n, message in context.requests.items()} == {1: "one", 2: "two"}
    assert {n: message.text for n, message in context.responses.items()} == {1: "first", 2: "second"}
    assert len(reads) == 1


@pytest.mark.parametrize("look", [Context.model_dump, copy.deepcopy, lambda context: context == context.model_copy()])
def test_stored_turns_are_in_every_dump_copy_and_comparison(look: Callable[[Context], object]) -> None:
    context = Context.stored(FIELDS.copy(), lambda: {1: TurnRecord(request=Message("one"))})
    look(context)
    assert "requests" in vars(context)
    assert context.model_dump()["requests"][1]["text"] == "one"


def test_a_stored_turn_that_cannot_be_read_is_told_to_who_asks_each_time() -> None:
    def read() -> dict[int, TurnRecord]:
        raise ValueError("no record")

    context = Context.stored(FIELDS.copy(), read)
    context.begin_turn(2, Message("two"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no record"):
            _ = context.responses


def test_fields_that_are_set_whole_are_kept_with_stored_turns_unread() -> None:
    turn = TurnRecord(request=Message("one"), response=Message("first"))
    context = Context.stored(FIELDS.copy(), lambda: {1: turn})
    context.begin_turn(2, Message("two"))
    context.labels = {2: NodeLabel(flow_name="flow", node_name="node")}
    context.answer_turn(Message("second"))
    label = NodeLabel(flow_name="flow", node_name="node")
    assert context.turn(2) == RunningTurn(Message("two"), Message("second"), label)


def test_a_context_is_pickled_whole() -> None:
    context = Context(id="c", requests={1: Message("one")}, current_turn_id=1)
    context.commit(b"reply")
    again = pickle.loads(pickle.dumps(context))  # noqa: S301 - made in the same line
    assert (again, again.committed_reply, again.last_request.text) == (context, b"reply", "one")
