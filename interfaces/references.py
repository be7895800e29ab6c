"""References to stored bytes: what stands as an attachment's `id` on the wire instead of the bytes themselves.

The string carries hash and size, so a reader can refuse what is too large before it asks for it, and what was truncated
or swapped after. It says nothing about where the bytes are: that is the attachment store's setting.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from interfaces.errors import AttachmentReferenceInvalid

PREFIX: Final = "attachment:sha256:"

_REFERENCE = re.compile(rf"{PREFIX}(?P<digest>[0-9a-f]{{64}}):(?P<size>0|[1-9][0-9]{{0,14}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """Which bytes: their SHA-256 in hexadecimal, and how many."""

    digest: str
    size: int

    @classmethod
    def parse(cls, identity: str) -> Self | None:
        """The reference that an attachment's `id` is; `None` for an id of somebody else's, a Telegram file id say.

        Raises `AttachmentReferenceInvalid` for one that begins as ours and does not go on as ours.
        """
        if not identity.startswith(PREFIX):
            return None
        match = _REFERENCE.fullmatch(identity)
        if match is None:
            raise AttachmentReferenceInvalid(
                f"the attachment id {identity[:120]!r} begins as a reference and is none: "
                f"{PREFIX}<64 hexadecimal digits, lower case>:<size in bytes> is expected"
            )
        return cls(match["digest"], int(match["size"]))

    @property
    def key(self) -> str:
        """Where the bytes are in every store, below its URL."""
        return f"{group_prefix(int(self.digest[:2], 16))}/{self.digest}"

    def __str__(self) -> str:
        return f"{PREFIX}{self.digest}:{self.size}"


GROUPS: Final = 256
"""Keys are in this many folders, evenly filled, so that no listing is long and no directory large."""

KEY_SHAPE: Final = re.compile(r"sha256/([0-9a-f]{2})/\1[0-9a-f]{62}", re.ASCII)
"""What `Reference.key` looks like. Whatever else somebody keeps beside it is not ours to delete."""


def group_prefix(group: int) -> str:
    """What the keys of a group begin with."""
    return f"sha256/{group:02x}"
