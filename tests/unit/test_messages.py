"""Messages and attachments: their JSON, its exchange with Chatsky in both directions, and where files come from."""

import inspect
import json
import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from interfaces import messages
from interfaces.messages import (
    Animation,
    Attachment,
    Audio,
    CallbackQuery,
    Contact,
    DataAttachment,
    DataModel,
    Document,
    Image,
    Invoice,
    Location,
    MediaGroup,
    Message,
    Origin,
    Poll,
    PollOption,
    Sticker,
    Video,
    VideoMessage,
    VoiceMessage,
)
from interfaces.messengers import MessengerInterfaceWithAttachments, PipelineRunnerFunction

with mock.patch("nest_asyncio.apply"):  # which would replace asyncio's loops and `run` for every test of the process
    from chatsky.core import message as chatsky

EVERY_ATTACHMENT: list[DataModel] = [
    CallbackQuery(query_string="yes"),
    Location(longitude=2.35, latitude=48.85),
    Contact(phone_number="+1", first_name="Ada", last_name=None),
    Invoice(title="t", description="d", currency="EUR", amount=100),
    Poll(question="q", options=[PollOption(text="a"), PollOption(text="b", votes=3)]),
    Audio(id="1"),
    Video(source="https://example.com/v.mp4"),
    Animation(id="2", use_cache=False),
    Image(source="https://example.com/i.png"),
    Sticker(id="3"),
    Document(id="4"),
    VoiceMessage(id="5"),
    VideoMessage(id="6"),
    MediaGroup(group=[Image(id="7"), DataAttachment(id="8", chatsky_attachment_type="animation"), Document(id="9")]),
    DataModel(chatsky_attachment_type="hologram", depth=3),
]


class Messenger(MessengerInterfaceWithAttachments):
    """Serves bytes and remembers what it was asked for."""

    def __init__(self, attachments_directory: Path | None = None) -> None:
        super().__init__(attachments_directory)
        self.asked: list[str] = []

    async def connect(self, pipeline_runner: PipelineRunnerFunction) -> None:
        raise NotImplementedError

    async def get_attachment_bytes(self, source: str) -> bytes:
        self.asked.append(source)
        return f"bytes of {source}".encode()


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_text_is_the_first_positional_argument() -> None:
    assert Message("hi") == Message(text="hi") == Message.model_validate("hi") == Message.model_validate({"text": "hi"})


def test_unknown_fields_are_kept() -> None:
    message = Message.model_validate({"text": "hi", "priority": 3})
    assert message.model_extra == {"priority": 3}
    assert json.loads(message.model_dump_json()) == {"text": "hi", "priority": 3}


def test_a_field_named_self_is_only_a_field() -> None:
    assert Message.model_validate_json('{"self": 1}').model_extra == {"self": 1}


def test_json_leaves_out_what_is_none_by_default_and_keeps_every_other_none() -> None:
    message = Message(
        "hi", misc={"a": None}, attachments=[Contact(phone_number="1", first_name="a", last_name=None)], extra=None
    )
    assert json.loads(message.model_dump_json()) == {
        "text": "hi",
        "misc": {"a": None},
        "attachments": [
            {"chatsky_attachment_type": "contact", "phone_number": "1", "first_name": "a", "last_name": None}
        ],
        "extra": None,
    }


def test_every_type_of_chatsky_exists_with_the_same_fields_and_defaults() -> None:
    theirs: dict[str, Any] = {
        name: kind
        for name, kind in vars(chatsky).items()
        if inspect.isclass(kind) and issubclass(kind, chatsky.DataModel | chatsky.Origin)
    }
    assert len(theirs) == 20
    for name, kind in theirs.items():
        ours: Any = getattr(messages, name)
        assert defaults(ours) == defaults(kind), name


def defaults(kind: Any) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}


@pytest.mark.parametrize("attachment", EVERY_ATTACHMENT, ids=lambda attachment: attachment.chatsky_attachment_type)
def test_an_attachment_goes_to_chatsky_and_back(attachment: DataModel) -> None:
    message = Message("hi", attachments=[attachment], annotations={"n": [1, None]}, misc={"k": {}}, extra=[1])
    message.origin = Origin(interface="web")
    theirs = chatsky.Message.model_validate_json(message.model_dump_json())
    assert type(theirs.attachments[0]).__name__ == type(attachment).__name__
    assert Message.model_validate_json(theirs.model_dump_json()) == message


@pytest.mark.parametrize("attachment", EVERY_ATTACHMENT, ids=lambda attachment: attachment.chatsky_attachment_type)
def test_an_attachment_survives_its_own_json(attachment: DataModel) -> None:
    message = Message(attachments=[attachment])
    again = Message.model_validate_json(message.model_dump_json())
    assert again == message
    assert again.attachments is not None
    assert type(again.attachments[0]) is type(attachment)


@pytest.mark.parametrize("tag", [{}, {"chatsky_attachment_type": "hologram"}, {"chatsky_attachment_type": [1]}])
def test_an_unknown_or_missing_tag_makes_a_plain_data_model(tag: dict[str, Any]) -> None:
    raw = {"longitude": 1, "latitude": 2, **tag}
    message = Message.model_validate({"attachments": [raw]})
    assert message.attachments == [DataModel(**raw)]
    assert message.model_dump(mode="json")["attachments"] == [raw]


@pytest.mark.parametrize(
    ("attachment", "where"),
    [
        ({"chatsky_attachment_type": "location", "longitude": 1}, ("location", "latitude")),
        (
            {"chatsky_attachment_type": "poll", "question": "q", "options": [{"votes": 1}]},
            ("poll", "options", 0, "text"),
        ),
        ({"chatsky_attachment_type": "media_group", "group": [{"id": "1"}]}, ("media_group", "group", 0)),
        (5, ("other",)),
    ],
)
def test_a_known_tag_with_wrong_fields_is_refused_naming_the_field(attachment: Any, where: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        Message.model_validate({"attachments": [attachment]})
    assert refused.value.errors()[0]["loc"][: 2 + len(where)] == ("attachments", 0, *where)


def test_attachments_of_a_users_own_class_keep_their_class_and_fields() -> None:
    class Pin(Location):
        label: str

    class Hologram(Attachment):
        depth: int
        chatsky_attachment_type: str = "hologram"

    message = Message(attachments=[Pin(longitude=1, latitude=2, label="home"), Hologram(depth=3)])
    assert message.attachments is not None
    assert [type(attachment) for attachment in message.attachments] == [Pin, Hologram]
    assert [
        written.get("label", written.get("depth")) for written in message.model_dump(mode="json")["attachments"]
    ] == [
        "home",
        3,
    ]


@pytest.mark.parametrize("given", [{}, {"source": "https://e.com/a", "id": "1"}, {"source": ""}, {"id": ""}])
def test_exactly_one_of_source_and_id_must_be_set(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of `source` and `id` must be set"):
        Image.model_validate(given)


@pytest.mark.parametrize("url", ["ftp://e.com/a", "file:///etc/hostname", "FILE:/etc/hostname", "data:text/plain,a"])
def test_a_url_that_is_not_http_is_refused_rather_than_taken_for_a_path(url: str) -> None:
    with pytest.raises(ValidationError, match="URL scheme should be 'http' or 'https'"):
        Image.model_validate({"source": url})


def test_reading_an_attachment_does_not_look_at_the_disk() -> None:
    assert Image.model_validate({"source": "/no/such/file"}).source == Path("/no/such/file")


@pytest.mark.parametrize(
    "raw",
    [
        {"text": "hi", "extra": "gASVAgAAAAAAAABLAS4=", "__pickled_extra_fields__": ["extra"]},
        {"misc": {"k": "gASVAgAAAAAAAABLAS4=", "__pickled_extra_fields__": ["k"]}},
        {"annotations": {"__pickled_extra_fields__": []}},
        {"attachments": [{"__pickled_extra_fields__": []}]},
        {"attachments": [{"chatsky_attachment_type": "audio", "id": "1", "__pickled_extra_fields__": []}]},
        {"origin": {"__pickled_extra_fields__": []}},
    ],
)
def test_pickled_fields_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Message.model_validate_json(json.dumps(raw))
    assert refused.value.errors()[0]["type"] == "unsafe_payload"


def test_pickled_fields_cannot_be_written_either() -> None:
    message = Message(misc={})
    assert message.misc is not None
    message.misc["__pickled_extra_fields__"] = ["a"]
    with pytest.raises(PydanticSerializationError, match="__pickled_extra_fields__"):
        message.model_dump_json()


@pytest.mark.parametrize("value", [b"bytes", float("nan"), float("inf"), object(), {(1, 2): 3}, [{"a": b"\xff"}]])
@pytest.mark.parametrize("field", ["misc", "annotations", "extra"])
def test_what_is_not_json_is_refused_when_written_naming_the_key(field: str, value: Any) -> None:
    message = Message(extra=value) if field == "extra" else Message.model_validate({field: {"culprit": value}})
    with pytest.raises(PydanticSerializationError, match="extra" if field == "extra" else "culprit"):
        message.model_dump_json()
    with pytest.raises(PydanticSerializationError):
        message.model_dump(mode="json")


def test_a_value_that_contains_itself_is_refused_when_written() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PydanticSerializationError, match="nested deeper than 100 levels"):
        Message(misc={"endless": endless}).model_dump_json()


def test_the_deepest_value_that_is_written_can_be_read_again() -> None:
    value: Any = 0
    for _ in range(100):
        value = [value]
    message = Message(misc={"deep": value})
    assert Message.model_validate_json(message.model_dump_json()) == message


def test_dates_ids_and_models_are_written_as_their_json() -> None:
    misc = {"at": datetime(2026, 1, 2, tzinfo=UTC), "id": uuid.UUID(int=1), "message": Message("hi"), "pair": (1, 2)}
    written = Message(misc=misc).model_dump(mode="json")["misc"]
    assert written == {
        "at": "2026-01-02T00:00:00Z",
        "id": str(uuid.UUID(int=1)),
        "message": {"text": "hi"},
        "pair": [1, 2],
    }


@pytest.mark.parametrize(
    ("original", "written"), [({"update_id": 1}, {"update_id": 1}), ("pickle", None), (object(), None)]
)
def test_an_origins_message_is_written_only_where_it_is_json_and_no_string(original: Any, written: Any) -> None:
    origin = json.loads(Message(origin=Origin(message=original, interface="web")).model_dump_json())["origin"]
    assert origin.pop("message", None) == written
    assert origin == {"interface": "web"}


def test_a_message_prints_as_chatskys_does() -> None:
    assert str(Message("hi", misc={"a": 1})) == str(chatsky.Message("hi", misc={"a": 1})) == "text='hi' misc='{'a': 1}'"


def test_json_schema_lets_exactly_one_attachment_type_fit() -> None:
    schema = Message.model_json_schema()
    members = schema["properties"]["attachments"]["anyOf"][0]["items"]["oneOf"]
    tags = {
        schema["$defs"][m["$ref"].rsplit("/", 1)[1]]["properties"]["chatsky_attachment_type"]["const"]
        for m in members[:-1]
    }
    assert set(members[-1]["not"]["properties"]["chatsky_attachment_type"]["enum"]) == tags
    assert all(
        "chatsky_attachment_type" in schema["$defs"][m["$ref"].rsplit("/", 1)[1]]["required"] for m in members[:-1]
    )


async def test_a_local_file_is_read_and_the_interface_not_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"local")
    messenger = Messenger(tmp_path / "cache")
    assert await Document(source=tmp_path / "a.txt").get_bytes(messenger) == b"local"
    assert messenger.asked == []


@pytest.mark.parametrize("attachment", [Image(id="42"), Image.model_validate({"source": "https://e.com/42"})])
async def test_the_interface_is_asked_once_and_its_answer_cached(attachment: DataAttachment, tmp_path: Path) -> None:
    attachment = attachment.model_copy()
    messenger = Messenger(tmp_path)
    name = attachment.id or str(attachment.source)
    assert [await attachment.get_bytes(messenger) for _ in range(2)] == [f"bytes of {name}".encode()] * 2
    assert messenger.asked == [name]
    assert files_in(tmp_path) == [attachment.cached_filename]
    assert "cached_filename" not in attachment.model_dump_json()


async def test_without_cache_the_interface_is_asked_every_time(tmp_path: Path) -> None:
    messenger = Messenger(tmp_path)
    attachment = Image(id="42", use_cache=False)
    await attachment.get_bytes(messenger)
    await attachment.get_bytes(messenger)
    assert messenger.asked == ["42", "42"]
    assert files_in(tmp_path) == []


async def test_a_cached_copy_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    messenger = Messenger(tmp_path)
    attachment = Image(id="42")
    await attachment.get_bytes(messenger)
    assert attachment.cached_filename is not None
    attachment.cached_filename.unlink()
    assert await attachment.get_bytes(messenger) == b"bytes of 42"
    assert messenger.asked == ["42", "42"]


async def test_a_cached_filename_from_outside_is_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    attachment = Image.model_validate({"id": "42", "cached_filename": str(secret)})
    assert await attachment.get_bytes(Messenger(tmp_path)) == b"bytes of 42"


async def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messenger = Messenger(tmp_path / "cache")
    messenger.attachments_directory.rmdir()
    attachment = Image(id="42")
    with caplog.at_level(logging.WARNING):
        assert await attachment.get_bytes(messenger) == b"bytes of 42"
    assert "attachment not cached" in caplog.text
    assert attachment.cached_filename is None
