"""The seed's rule on attachments: "Attachments not in this list will be neglected."

Works on Chatsky's messages as well as on ours, with a set of classes of the same kind. What is neglected is never
silent: `Neglected` counts it and tells the log. Used by the edge and by the worker's interface.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TypeVar

from pydantic import BaseModel

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)


def keep_supported(message: M, types: Collection[type]) -> tuple[M, list[str]]:
    """`message` without the attachments that are of none of `types`, and the class names of those.

    A base class stands for all that is derived from it; `DataModel` for everything. A media group is kept where its own
    type is among `types`, with those of its members that are, and goes with the last of them.
    """
    before: Sequence[BaseModel] | None = getattr(message, "attachments", None)
    if not before:
        return message, []
    dropped: list[str] = []
    kept = [found for attachment in before if (found := _kept(attachment, tuple(types), dropped)) is not None]
    return (message.model_copy(update={"attachments": kept}) if dropped else message), dropped


class Neglected:
    """What one interface was given and could not take, by class name: those of strangers' types are all one."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self.counts: Counter[str] = Counter()

    def note(self, kinds: Collection[str], action: str) -> None:
        """Count, and log each kind as a warning the first time. `action` is "receive" or "send"."""
        for kind in kinds:
            level = logging.DEBUG if self.counts[kind] else logging.WARNING
            self.counts[kind] += 1
            logger.log(level, "%s cannot %s attachments of type %s: neglected", self._interface, action, kind)


def _kept(attachment: BaseModel, types: tuple[type, ...], dropped: list[str]) -> BaseModel | None:
    if not isinstance(attachment, types):
        dropped.append(type(attachment).__name__)
        return None
    members = getattr(attachment, "group", None)
    if getattr(attachment, "chatsky_attachment_type", None) != "media_group" or not members:
        return attachment
    kept = [member for member in members if isinstance(member, types)]
    if len(kept) == len(members):
        return attachment
    dropped.extend(type(member).__name__ for member in members if not isinstance(member, types))
    return attachment.model_copy(update={"group": kept}) if kept else None
