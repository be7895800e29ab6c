"""Chatsky's types and ours, both ways, with nothing pickled or unpickled between."""

import base64
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import chatsky
import pytest
from chatsky.core import message as theirs
from pydantic import BaseModel

import interfaces as ours
from interfaces.bridge import from_chatsky, message_from_json, to_chatsky, to_chatsky_context

ATTACHMENTS: list[tuple[str, dict[str, Any]]] = [
    ("CallbackQuery", {"query_string": "yes"}),
    ("Location", {"longitude": 1.5, "latitude": -2.0}),
    ("Contact", {"phone_number": "1", "first_name": "Ada", "last_name": None, "user_id": 7}),
    ("Invoice", {"title": "t", "description": "d", "currency": "EUR", "amount": 100}),
    ("Poll", {"question": "?", "options": [{"text": "a", "votes": 2}], "is_closed": False}),
    ("Audio", {"id": "file-1", "thumbnail": {"id": "small", "chatsky_attachment_type": "image"}}),
    ("Video", {"source": "https://example.org/v.mp4"}),
    ("Animation", {"id": "file-2"}),
    ("Image", {"source": "https://example.org/i.png", "caption": "look", "use_cache": False}),
    ("Sticker", {"id": "file-3", "is_animated": True}),
    ("Document", {"id": "file-4", "file_name": "a.pdf"}),
    ("VoiceMessage", {"id": "file-5"}),
    ("VideoMessage", {"id": "file-6"}),
]


@pytest.mark.parametrize(("name", "fields"), ATTACHMENTS, ids=[name for name, _ in ATTACHMENTS])
def test_every_attachment_goes_there_and_back(name: str, fields: dict[str, Any]) -> None:
    ours_before = ours.Message(attachments=[getattr(ours, name)(**fields)])
    there = to_chatsky(ours_before)
    assert there.attachments == [getattr(theirs, name)(**fields)]
    assert from_chatsky(there) == ours_before


def test_a_media_group_and_an_unknown_attachment_go_there_and_back() -> None:
    group = ours.MediaGroup(group=[ours.Image(id="1"), ours.Video(id="2", caption="c")])
    other = ours.messages.DataModel.model_validate({"chatsky_attachment_type": "hologram", "depth": [1, 2]})
    before = ours.Message("look", attachments=[group, other], annotations={"a": 1}, misc={"b": [None]}, extra={"c": 1})
    there = to_chatsky(before)
    assert there.attachments is not None
    assert [type(member).__name__ for member in there.attachments[0].group] == ["Image", "Video"]
    assert from_chatsky(there) == before


def test_the_original_of_a_message_stays_plain_json() -> None:
    before = ours.Message("hi", origin=ours.Origin(message={"update_id": 1}, interface="web"))
    there = to_chatsky(before)
    assert there.origin is not None
    assert there.origin.message == {"update_id": 1}
    assert from_chatsky(there) == before


class Update:
    """What a messenger's own library gives."""

    def to_dict(self) -> dict[str, Any]:
        return {"update_id": 7}

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


def test_an_original_with_a_dictionary_form_travels_as_that_and_is_not_pickled() -> None:
    message = chatsky.Message("hi")
    message.origin = theirs.Origin.model_construct(message=Update(), interface="telegram")
    assert from_chatsky(message).origin == ours.Origin(message={"update_id": 7}, interface="telegram")


@pytest.mark.parametrize("original", [object(), "gASV", b"bytes"])
def test_an_original_that_is_not_json_is_left_out(original: Any) -> None:
    message = chatsky.Message("hi")
    message.origin = theirs.Origin.model_construct(message=original, interface="telegram")
    assert from_chatsky(message).origin == ours.Origin(interface="telegram")


class Bomb:
    def __reduce__(self) -> Any:
        return (sys.exit, ("unpickled",))


PICKLE = base64.encodebytes(pickle.dumps(Bomb())).decode()


@pytest.mark.parametrize(
    "raw",
    [
        {"misc": {"x": PICKLE, "__pickled_extra_fields__": ["x"]}},
        {"annotations": {"x": PICKLE, "__pickled_extra_fields__": ["x"]}},
        {"x": PICKLE, "__pickled_extra_fields__": ["x"]},
        {"attachments": [{"x": PICKLE, "__pickled_extra_fields__": ["x"]}]},
        {
            "attachments": [
                {"chatsky_attachment_type": "image", "id": "1", "x": PICKLE, "__pickled_extra_fields__": ["x"]}
            ]
        },
    ],
)
def test_a_pickle_never_reaches_chatsky(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pickled"):
        message_from_json(raw)


def test_an_original_that_is_a_pickle_is_not_unpickled() -> None:
    message = message_from_json({"origin": {"message": PICKLE, "interface": "web"}})
    assert message.origin is not None
    assert message.origin.message == PICKLE
    assert from_chatsky(message).origin == ours.Origin(interface="web")


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (chatsky.Message(misc={"deep": [{"handle": object()}]}), r"\['misc'\]\['deep'\]\[0\]\['handle'\]"),
        (chatsky.Message(annotations={"a": b"bytes"}), r"\['annotations'\]\['a'\]"),
        (chatsky.Message(extra=float("nan")), r"\['extra'\]"),
        (chatsky.Message(attachments=[theirs.Image(id="1", more=object())]), r"\['attachments'\]\[0\]\['more'\]"),
    ],
)
def test_what_is_not_json_is_refused_with_its_key(message: chatsky.Message, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        from_chatsky(message)


def test_what_has_a_json_form_is_written_as_that() -> None:
    class Point(BaseModel):
        x: int

    message = chatsky.Message(misc={"day": date(2026, 1, 2), "point": Point(x=1), "path": Path("a")})
    assert from_chatsky(message).misc == {"day": "2026-01-02", "point": {"x": 1}, "path": "a"}


def test_a_context_is_what_an_interface_expects_of_chatsky() -> None:
    context = ours.Context(
        id="ada",
        current_turn_id=4,
        misc={"n": 1},
        labels={4: ours.turn_records.NodeLabel(flow_name="f", node_name="n")},
        requests={4: ours.Message("hi")},
        responses={4: ours.Message("hello")},
    )
    there = to_chatsky_context(context)
    assert (there.id, there.current_turn_id, there.misc) == ("ada", 4, {"n": 1})
    assert there.last_request == chatsky.Message("hi")
    assert there.last_response == chatsky.Message("hello")
    assert there.last_label == chatsky.AbsoluteNodeLabel(flow_name="f", node_name="n")


PROOF = """
import asyncio
from {first}
import interfaces.bridge, asyncio.tasks
from worker.apps import load_object
load_object("tests.bots.chatsky_counting:pipeline")
assert asyncio.Task.__module__ == "_asyncio", asyncio.Task
assert not hasattr(asyncio, "_nest_patched")
import nest_asyncio
nest_asyncio.apply()
assert hasattr(asyncio, "_nest_patched"), "a bot that asks for it itself gets it"
"""


@pytest.mark.parametrize("first", ["interfaces import Message", "worker import Worker"])
def test_loading_a_pipeline_leaves_asyncio_as_it_is(first: str) -> None:
    ran = subprocess.run([sys.executable, "-c", PROOF.format(first=first)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
