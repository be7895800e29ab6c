"""What a message can carry beside its text: every attachment type of Chatsky 0.10, told apart by a tag.

`chatsky_attachment_type` decides which type JSON is read as; JSON with another or no tag is kept whole, as `DataModel`.
Reading an attachment touches neither disk nor network; only `DataAttachment.get_bytes` does, and it never fetches a URL
itself: that is for the interface, which knows what it may reach.
"""

import asyncio
import logging
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    HttpUrl,
    SerializeAsAny,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from interfaces.data_model import DataModel
from interfaces.local_files import read_here, write_here

if TYPE_CHECKING:
    from interfaces.messengers import MessengerInterfaceWithAttachments

logger = logging.getLogger(__name__)

TAG = "chatsky_attachment_type"
"""The field that tells attachments apart."""


def _require_tag(schema: dict[str, Any]) -> None:
    required = schema.setdefault("required", [])
    if TAG not in required:  # It is there where the class gives it no default.
        required.append(TAG)


class Attachment(DataModel):
    """Base of all attachments. `chatsky_attachment_type` tells which one it is, in JSON too."""

    # The tag has a default for those who write Python; in JSON it is what tells the types apart.
    model_config = ConfigDict(json_schema_extra=_require_tag)

    chatsky_attachment_type: str


class CallbackQuery(Attachment):
    """An event that is not a message, for example a pressed button; `query_string` is the data it carries."""

    query_string: str
    chatsky_attachment_type: Literal["callback_query"] = "callback_query"


class Location(Attachment):
    """A point on the Earth's surface, in degrees."""

    # Infinity would be written as null, and the turn it is in could not be read again.
    longitude: FiniteFloat
    latitude: FiniteFloat
    chatsky_attachment_type: Literal["location"] = "location"


class Contact(Attachment):
    """A person's phone number and name."""

    phone_number: str
    first_name: str
    last_name: str | None
    chatsky_attachment_type: Literal["contact"] = "contact"


class Invoice(Attachment):
    """A request for payment. `amount` is in the smallest unit of `currency`."""

    title: str
    description: str
    currency: str
    amount: int
    chatsky_attachment_type: Literal["invoice"] = "invoice"


class PollOption(DataModel):
    """One answer of a `Poll` and how many chose it."""

    text: str
    votes: int = 0
    chatsky_attachment_type: Literal["poll_option"] = "poll_option"


class Poll(Attachment):
    """A question with the answers to choose from."""

    question: str
    options: list[PollOption]
    chatsky_attachment_type: Literal["poll"] = "poll"


def source_kind(value: Any) -> str:
    """Whether the `source` of an attachment is a "url" or a "path"."""
    if isinstance(value, str):
        return "url" if re.match(r"[a-z][a-z0-9+.-]*://|(file|data):", value, re.IGNORECASE) else "path"
    return "path" if isinstance(value, Path) else "url"


def _readable_again(url: HttpUrl) -> HttpUrl:
    # It is kept as it is written, with escapes, which may be three times as long as what was read.
    try:
        HttpUrl(str(url))
    except ValidationError as error:
        raise PydanticCustomError("url_too_long", "the URL cannot be read again once it is written") from error
    return url


Source = Annotated[
    Annotated[HttpUrl, AfterValidator(_readable_again), Tag("url")] | Annotated[Path, Tag("path")],
    Discriminator(source_kind),
    # Generated, it would be "exactly one of" two formats, which every URL breaks: both are plain strings to a
    # validator.
    WithJsonSchema({"type": "string", "description": "A URL (http or https), or a path on the machine that reads it."}),
]
"""An HTTP URL or a local path. Unlike Chatsky's, a path need not exist: reading a message must not look at the disk."""


class DataAttachment(Attachment):
    """A file: on this machine (`source` is a path), on the web (`source` is a URL), or on a file server (`id`)."""

    source: Annotated[Source | None, BeforeValidator(lambda value: value or None)] = None
    use_cache: bool = True
    """Whether `get_bytes` may keep the bytes of a URL or `id` in the interface's attachments directory."""
    cached_filename: Path | None = Field(default=None, exclude=True)
    """Where `get_bytes` has kept them. It means something on this machine only, so it is never written out."""
    id: str | None = None

    @model_validator(mode="after")
    def _source_or_id(self) -> Self:
        if (self.source is None) == (not self.id):
            raise PydanticCustomError("source_or_id", "exactly one of `source` and `id` must be set")
        return self

    async def get_bytes(self, from_interface: "MessengerInterfaceWithAttachments") -> bytes:
        """Return the file's bytes, never fetching anything itself.

        A local file is read; otherwise a cached copy, where there is one and `use_cache` allows it; otherwise the
        interface is asked, by `id` or by URL. Raises `OSError` for a local file that cannot be read, and whatever
        `from_interface.get_attachment_bytes` raises.
        """
        if isinstance(self.source, Path):
            return await asyncio.to_thread(self.source.read_bytes)
        name = self.id or str(self.source)
        # The name is computed, never taken from `cached_filename`: that may come from a stranger and be any file.
        cache = from_interface.attachments_directory / str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        if self.use_cache and self.cached_filename == cache:
            try:
                return await asyncio.to_thread(read_here, cache)
            except OSError:
                self.cached_filename = None
        data = await from_interface.get_attachment_bytes(name)
        if self.use_cache:
            try:
                await asyncio.to_thread(write_here, cache, data)
            except OSError as error:
                logger.warning("attachment not cached as %s: %s", cache, error)
            else:
                self.cached_filename = cache
        return data


class Audio(DataAttachment):
    """An audio file."""

    chatsky_attachment_type: Literal["audio"] = "audio"


class Video(DataAttachment):
    """A video file."""

    chatsky_attachment_type: Literal["video"] = "video"


class Animation(DataAttachment):
    """An animation."""

    chatsky_attachment_type: Literal["animation"] = "animation"


class Image(DataAttachment):
    """An image file."""

    chatsky_attachment_type: Literal["image"] = "image"


class Sticker(DataAttachment):
    """A sticker."""

    chatsky_attachment_type: Literal["sticker"] = "sticker"


class Document(DataAttachment):
    """A file of any kind."""

    chatsky_attachment_type: Literal["document"] = "document"


class VoiceMessage(DataAttachment):
    """A recorded voice message."""

    chatsky_attachment_type: Literal["voice_message"] = "voice_message"


class VideoMessage(DataAttachment):
    """A recorded video message."""

    chatsky_attachment_type: Literal["video_message"] = "video_message"


_OTHER = "other"


def _none_of(*types: type[Attachment]) -> Any:
    """The condition on "other" in JSON Schema, where exactly one member of a union may fit."""
    tags = [kind.model_fields[TAG].default for kind in types]
    return Field(json_schema_extra={"not": {"required": [TAG], "properties": {TAG: {"enum": tags}}}})


def _by_tag(*types: type[Attachment]) -> Discriminator:
    """Choose one of `types` by tag (or, for an instance, by class), and "other" where none fits."""
    by_tag = {kind.model_fields[TAG].default: kind for kind in types}

    def choose(value: Any) -> str:
        if isinstance(value, dict):
            tag = value.get(TAG)
            return tag if isinstance(tag, str) and tag in by_tag else _OTHER
        return next((tag for tag, kind in by_tag.items() if isinstance(value, kind)), _OTHER)

    return Discriminator(choose)


GroupMember = Annotated[
    Annotated[Audio, Tag("audio")]
    | Annotated[Video, Tag("video")]
    | Annotated[Image, Tag("image")]
    | Annotated[Document, Tag("document")]
    | Annotated[DataAttachment, Tag(_OTHER), _none_of(Audio, Video, Image, Document)],
    _by_tag(Audio, Video, Image, Document),
]
"""What `MediaGroup` holds: files, of which four kinds have a type of their own there."""


class MediaGroup(Attachment):
    """Files shown together; outside a group each is sent on its own."""

    group: list[SerializeAsAny[GroupMember]] = Field(default_factory=list)
    chatsky_attachment_type: Literal["media_group"] = "media_group"


_KINDS = (
    CallbackQuery, Location, Contact, Invoice, Poll, Audio, Video, Animation,
    Image, Sticker, Document, VoiceMessage, VideoMessage, MediaGroup,
)  # fmt: skip

AnyAttachment = Annotated[
    Annotated[CallbackQuery, Tag("callback_query")]
    | Annotated[Location, Tag("location")]
    | Annotated[Contact, Tag("contact")]
    | Annotated[Invoice, Tag("invoice")]
    | Annotated[Poll, Tag("poll")]
    | Annotated[Audio, Tag("audio")]
    | Annotated[Video, Tag("video")]
    | Annotated[Animation, Tag("animation")]
    | Annotated[Image, Tag("image")]
    | Annotated[Sticker, Tag("sticker")]
    | Annotated[Document, Tag("document")]
    | Annotated[VoiceMessage, Tag("voice_message")]
    | Annotated[VideoMessage, Tag("video_message")]
    | Annotated[MediaGroup, Tag("media_group")]
    | Annotated[DataModel, Tag(_OTHER), _none_of(*_KINDS)],
    _by_tag(*_KINDS),
]
"""One attachment of a message. An unknown or missing tag makes it a plain `DataModel` with every field it came with."""
