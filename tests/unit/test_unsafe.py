"""The filter for what must never come in from the wire, wherever in the JSON a stranger puts it."""

import base64
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.data_model import PICKLED_FIELDS
from interfaces.errors import Reason, RequestRejected
from interfaces.unsafe import refuse_unsafe

PICKLE = base64.b64encode(pickle.dumps({"any": "object"})).decode()

plain_keys = st.text(max_size=8).filter(lambda key: key not in (PICKLED_FIELDS, "source", "cached_filename"))
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_keys, inner, max_size=4),
    max_leaves=12,
)
Path = list[str | int]
paths = st.lists(plain_keys | st.integers(0, 2), max_size=6)


def buried(value: Any, path: Path) -> Any:
    """`value` inside one object per text and one list per number of `path`."""
    for step in reversed(path):
        value = {step: value, "beside": [1, None]} if isinstance(step, str) else [*[None] * step, value, {"beside": 2}]
    return value


def assert_refused(message: Any, *others: Any) -> RequestRejected:
    with pytest.raises(RequestRejected) as refused:
        refuse_unsafe(message, *others)
    assert refused.value.reason is Reason.UNSAFE_PAYLOAD
    return refused.value


@given(path=paths, value=plain_json)
def test_a_pickle_marker_is_refused_at_any_depth(path: Path, value: Any) -> None:
    assert_refused({"misc": buried({PICKLED_FIELDS: value}, path)})
    assert_refused({"text": "fine"}, buried({PICKLED_FIELDS: value}, path))


@given(
    path=paths, source=st.sampled_from(["/etc/passwd", "etc/passwd", "file:///etc/passwd", "ftp://a/b", "", "data:,x"])
)
def test_an_attachment_source_that_is_no_web_address_is_refused_at_any_depth(path: Path, source: str) -> None:
    assert_refused({"attachments": buried({"source": source}, path)})


@given(path=paths, name=st.text(max_size=8))
def test_a_cached_file_name_is_refused_at_any_depth(path: Path, name: str) -> None:
    assert_refused({"attachments": buried({"cached_filename": name}, path)})


@given(
    text=st.none() | st.text(max_size=8),
    misc=plain_json,
    origin=plain_json,
    attachments=st.lists(
        st.fixed_dictionaries(
            {"source": st.sampled_from(["http://a/b", "https://a/b", "HTTPS://A/B", None])},
            optional={"id": st.text(max_size=8), "cached_filename": st.none(), "caption": plain_json},
        ),
        max_size=3,
    ),
)
def test_plain_json_with_web_addresses_passes(text: str | None, misc: Any, origin: Any, attachments: Any) -> None:
    refuse_unsafe(
        {"text": text, "misc": misc, "origin": {"message": {"update": origin}}, "attachments": attachments}, misc
    )


@given(value=plain_json)
def test_what_is_no_message_is_left_to_the_model_to_refuse(value: Any) -> None:
    refuse_unsafe(value if not isinstance(value, dict) else [value], None)


def test_a_pickled_original_is_refused_and_an_original_object_passes() -> None:
    refused = assert_refused({"origin": {"message": PICKLE}})
    assert "origin.message" in refused.detail
    refuse_unsafe({"origin": {"message": {"update_id": 1}, "interface": "telegram"}})
    refuse_unsafe({"origin": "a string"})


def test_only_attachments_are_searched_for_files() -> None:
    refuse_unsafe({"misc": {"source": "/etc/passwd", "cached_filename": "x"}}, {"source": "/etc/passwd"})


def test_what_is_refused_is_not_repeated_to_its_sender() -> None:
    assert "/etc/shadow" not in assert_refused({"attachments": [{"source": "/etc/shadow"}]}).detail


def test_nesting_deeper_than_the_stack_is_searched_to_the_bottom() -> None:
    depth = 100_000
    assert_refused({"misc": buried({PICKLED_FIELDS: {}}, [0] * depth)})
    assert_refused({"attachments": buried({"source": "/etc/passwd"}, [0] * depth)})
