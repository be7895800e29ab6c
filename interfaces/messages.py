"""What users and bots say: `Message`, where it comes from (`Origin`), and all attachment types, under one import.

Fields, defaults and JSON are Chatsky 0.10's, so a message goes to Chatsky and back as JSON. Unlike Chatsky's, reading
one never unpickles anything, and writing one never pickles: what is not JSON is an error that names its key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

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
        has_text_alone = attachments is None and annotations is None and misc is None and origin is None and not extra
        if has_text_alone and type(text) is str and type(self) is Message:
            _become_text(self, text, _FIELDS)
            return
        super().__init__(text=text, attachments=attachments, annotations=annotations, misc=misc, origin=origin, **extra)

    # As pydantic's RootModel does: validation must not go through `__init__`, where strangers' keys become arguments.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # a function attribute pydantic looks for

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"text": data} if isinstance(data, str) else data

    def __str__(self) -> str:
        return " ".join(f"{name}='{value}'" for name, value in self.model_dump(exclude_none=True).items())


def text_message(text: str) -> Message:
    """What validating `{"text": text}` gives, where the text is known to be a string."""
    message = Message.__new__(Message)
    _become_text(message, text, ("text",))
    return message


def _become_text(message: Message, text: str, given: Iterable[str]) -> None:
    """Make a new message one of this text and nothing else: it gets all that pydantic sets of one.

    :param given: names of the fields that were said, and not left to their defaults.
    """
    object.__setattr__(message, "__dict__", {**_EMPTY, "text": text})
    object.__setattr__(message, "__pydantic_fields_set__", set(given))
    object.__setattr__(message, "__pydantic_extra__", {})
    object.__setattr__(message, "__pydantic_private__", None)


def message_json(message: Message) -> dict[str, Any]:
    """`message` as JSON. Raises `PydanticSerializationError`, which names the key, where something in it is none.

    One that is only text, as most are, is written without pydantic, which takes four times as long.
    """
    if type(message) is Message and type(message.text) is str and has_text_at_most(message):
        return {"text": message.text}
    return message.model_dump(mode="json")


_FIELDS: Final = tuple(Message.model_fields)
_EMPTY: Final = dict[str, None].fromkeys(_FIELDS)


def has_text_at_most(message: Message) -> bool:
    """Whether nothing is in `message` beside its text."""
    return not message.__pydantic_extra__ and {**message.__dict__, "text": None} == _EMPTY
