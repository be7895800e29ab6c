"""The seed's "Attachments not in this list will be neglected", on our messages and on Chatsky's."""

import logging
from typing import Any
from unittest import mock

import pytest

from interfaces.data_model import DataModel
from interfaces.messages import (
    Attachment,
    Audio,
    DataAttachment,
    Document,
    Image,
    Location,
    MediaGroup,
    Message,
    Video,
)
from interfaces.supported_attachments import Neglected, keep_supported

with mock.patch("nest_asyncio.apply"):  # which would replace asyncio's loops and `run` for every test of the process
    from chatsky.core import message as chatsky

GROUP = MediaGroup(group=[Image(id="1"), Document(id="2"), DataAttachment(id="3", chatsky_attachment_type="gif")])
UNKNOWN = DataModel(chatsky_attachment_type="hologram")
EVERYTHING: list[DataModel] = [Image(id="0"), Location(longitude=1, latitude=2), GROUP, UNKNOWN]


@pytest.mark.parametrize(
    ("types", "kept", "dropped"),
    [
        ({DataModel}, EVERYTHING, []),
        ({Attachment}, EVERYTHING[:3], ["DataModel"]),
        ({DataAttachment}, EVERYTHING[:1], ["Location", "MediaGroup", "DataModel"]),
        ({Image, Location}, EVERYTHING[:2], ["MediaGroup", "DataModel"]),
        (
            {Image, MediaGroup},
            [Image(id="0"), MediaGroup(group=[Image(id="1")])],
            ["Location", "Document", "DataAttachment", "DataModel"],
        ),
        ({MediaGroup, Video}, [], ["Image", "Location", "Image", "Document", "DataAttachment", "DataModel"]),
        (set(), [], ["Image", "Location", "MediaGroup", "DataModel"]),
    ],
)
def test_what_is_kept(types: set[type], kept: list[DataModel], dropped: list[str]) -> None:
    message = Message("text", attachments=EVERYTHING, misc={"a": 1})
    before = message.model_dump_json()
    found, neglected = keep_supported(message, types)
    assert found.attachments == kept
    assert (found.text, found.misc) == ("text", {"a": 1})
    assert neglected == dropped
    assert message.model_dump_json() == before


@pytest.mark.parametrize("attachments", [None, [], [Image(id="0")], [MediaGroup()]])
def test_where_nothing_is_dropped_the_message_is_the_same(attachments: list[DataModel] | None) -> None:
    message = Message(attachments=attachments)
    assert keep_supported(message, {Image, MediaGroup}) == (message, [])
    assert keep_supported(message, {Image, MediaGroup})[0] is message


def test_chatskys_messages_and_sets_work_alike() -> None:
    from chatsky.messengers.telegram.abstract import _AbstractTelegramInterface as Telegram

    group: Any = chatsky.MediaGroup(group=[chatsky.Image(id="1"), chatsky.Audio(id="2")])
    message = chatsky.Message(attachments=[group, chatsky.Invoice(title="t", description="", currency="EUR", amount=1)])
    sent, dropped = keep_supported(message, Telegram.supported_response_attachment_types)
    assert sent.attachments == [group]
    assert dropped == ["Invoice"]
    # Chatsky's Telegram interface makes requests of a type that is not in its own set of those it can receive.
    pressed = chatsky.Message(attachments=[chatsky.CallbackQuery(query_string="yes")])
    assert keep_supported(pressed, Telegram.supported_request_attachment_types)[1] == ["CallbackQuery"]


def test_what_is_neglected_is_counted_and_each_kind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    neglected = Neglected("telegram")
    neglected.note(["Image", "Audio", "Image"], "send")
    neglected.note(["Image"], "send")
    assert neglected.counts == {"Image": 3, "Audio": 1}
    told = [(record.levelname, record.args and tuple(record.args)[-1]) for record in caplog.records]
    assert told == [("WARNING", "Image"), ("WARNING", "Audio"), ("DEBUG", "Image"), ("DEBUG", "Image")]
    assert caplog.records[0].getMessage() == "telegram cannot send attachments of type Image: neglected"


def test_only_what_was_dropped_is_dropped() -> None:
    found, dropped = keep_supported(Message(attachments=[Audio(id="1"), Image(id="2")]), {Audio})
    assert (found.attachments, dropped) == ([Audio(id="1")], ["Image"])
