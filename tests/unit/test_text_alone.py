"""What has ways of its own because it is nothing but text, as most is, comes out as on the way for everything."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.envelope import RequestBody, decode_body
from interfaces.errors import Reason, RequestRejected
from interfaces.limits import Limits
from interfaces.messages import Message, text_message

EVERYTHING = {"update_ctx_misc": None}
"""With it a body says the same, and is none of text alone."""

texts = st.sampled_from(["", "hello", "__pickled_extra_fields__", "x" * 20, "\N{PARTY POPPER}"]) | st.text(max_size=12)
odd = st.none() | st.booleans() | st.integers(0, 2) | st.just(1.0) | texts | st.lists(texts, max_size=1)
bodies = st.fixed_dictionaries(
    {
        "version": st.just(1) | odd,
        "ctx_id": st.sampled_from(["user-1", "", "u" * 200, "ü" * 101]) | odd,
        "message": st.fixed_dictionaries({"text": texts})
        | st.dictionaries(st.sampled_from(["text", "misc", "extra"]), odd, max_size=2)
        | odd,
    },
    optional={"unknown": odd},
)
depths, nodes = st.sampled_from([0, 1, 2, 100]), st.sampled_from([3, 10])
limits = st.builds(Limits, depth=depths, nodes=nodes, text=st.integers(0, 20))


def state_of(message: Message) -> list[Any]:
    names = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
    return [type(message), *(getattr(message, name) for name in names), list(message.__dict__)]


def decoded(body: dict[str, Any], limits: Limits) -> Reason | tuple[str, list[Any], Any]:
    try:
        found = decode_body(json.dumps(body).encode(), limits)
    except RequestRejected as rejected:
        return rejected.reason
    return found.ctx_id, state_of(found.message), found.update_ctx_misc


@given(body=bodies, limits=limits)
def test_a_body_of_text_alone_is_read_or_refused_like_any_other(body: dict[str, Any], limits: Limits) -> None:
    assert decoded(body, limits) == decoded(body | EVERYTHING, replace(limits, nodes=limits.nodes + len(EVERYTHING)))


def test_the_most_usual_body_is_read_without_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestBody, "model_validate", None)
    body = {"version": 1, "ctx_id": "user-1", "message": {"text": "hello"}}
    assert decode_body(json.dumps(body).encode()).message == Message("hello")
    with pytest.raises(TypeError):
        decode_body(json.dumps(body | EVERYTHING).encode())


@given(text=texts)
def test_a_text_is_the_message_that_pydantic_makes_of_it(text: str) -> None:
    validated = Message.model_validate({"text": text})
    assert state_of(text_message(text)) == state_of(validated)
    everything = dict.fromkeys(Message.model_fields) | {"text": text}
    assert state_of(Message(text)) == state_of(Message.model_validate(everything))


def pickled(message: Message) -> Any:
    return pickle.loads(pickle.dumps(message))  # noqa: S301 - our own


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_text_is_copied_compared_and_changed_like_any_message(copied: Callable[[Message], Any]) -> None:
    message = copied(Message("hello"))
    assert message == Message("hello") == Message.model_validate("hello")
    message.misc, message.later = {"a": 1}, "b"
    assert message.model_dump(mode="json") == {"text": "hello", "misc": {"a": 1}, "later": "b"}
    assert Message("hello").misc is None


def test_a_text_that_is_none_and_a_class_of_a_users_own_are_validated() -> None:
    class Shouted(Message):
        loud: bool = True

    assert Shouted(text="hello").loud
    with pytest.raises(ValueError, match="valid string"):
        Message(7)  # type: ignore[arg-type]  # as a bot may
