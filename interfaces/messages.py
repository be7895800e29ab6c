"""What users and bots say: `Message`, where it comes from (`Origin`), and all attachment types, under one import.

Fields, defaults and JSON are Chatsky 0.10's, so a message goes to Chatsky and back as JSON. Unlike Chatsky's, reading
one never unpickles anything, and writing one never pickles: what is not JSON is an error that names its key.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import SerializeAsAny, field_serializer, model_validator
from pydantic_core import PydanticSerializationError

from interfaces.attachments import (
    Animation,
    AnyAttachment,
    Attachment,
    Audio,
    CallbackQuery,
    Contact,
    DataAttachment,
    Document,
    Image,
    Invoice,
    Location,
    MediaGroup,
    Poll,
    PollOption,
    Sticker,
    Video,
    VideoMessage,
    VoiceMessage,
)
from interfaces.data_model import DataModel, JsonObject, json_object

__all__ = [
    "Animation",
    "AnyAttachment",
    "Attachment",
    "Audio",
    "CallbackQuery",
    "Contact",
    "DataAttachment",
    "DataModel",
    "Document",
    "Image",
    "Invoice",
    "Location",
    "MediaGroup",
    "Message",
    "Origin",
    "Poll",
    "PollOption",
    "Sticker",
    "Video",
    "VideoMessage",
    "VoiceMessage",
]


class Origin(DataModel):
    """Where a message comes from."""

    message: Any = None
    """The original the message was made from, for example a Telegram update. Left out of JSON where it is not
    JSON itself or is a string: Chatsky takes a string here for a pickle, so none is ever written."""
    interface: str | None = None
    """Name of the interface that made the message."""

    @field_serializer("message", when_used="json")
    def _json_or_nothing(self, message: Any) -> Any:
        if not isinstance(message, dict | list | int | float):
            return None
        try:
            return json_object({"message": message})["message"]
        except PydanticSerializationError:
            return None


class Message(DataModel):
    """One message: `Message("text")`, or with keyword arguments; it is also validated from a plain string."""

    text: str | None = None
    attachments: list[SerializeAsAny[AnyAttachment]] | None = None
    annotations: JsonObject | None = None
    """What a pipeline notes about the message."""
    misc: JsonObject | None = None
    """Whatever the user of this library wants to keep with the message."""
    origin: Origin | None = None

    def __init__(
        self,
        /,
        text: str | None = None,
        *,
        attachments: Sequence[DataModel] | None = None,
        annotations: dict[str, Any] | None = None,
        misc: dict[str, Any] | None = None,
        origin: Origin | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(text=text, attachments=attachments, annotations=annotations, misc=misc, origin=origin, **extra)

    # As pydantic's RootModel does: validation must not go through `__init__`, where strangers' keys become arguments.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # a function attribute pydantic looks for

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"text": data} if isinstance(data, str) else data

    def __str__(self) -> str:
        return " ".join(f"{name}='{value}'" for name, value in self.model_dump(exclude_none=True).items())


def message_json(message: Message) -> dict[str, Any]:
    """`message` as JSON. Raises `PydanticSerializationError`, which names the key, where something in it is none.

    One that is only text, as most are, is written without pydantic, which takes four times as long.
    """
    if type(message) is Message and type(message.text) is str and has_text_at_most(message):
        return {"text": message.text}
    return message.model_dump(mode="json")


_EMPTY = dict[str, None].fromkeys(Message.model_fields)


def has_text_at_most(message: Message) -> bool:
    """Whether nothing is in `message` beside its text."""
    return not message.__pydantic_extra__ and {**message.__dict__, "text": None} == _EMPTY
