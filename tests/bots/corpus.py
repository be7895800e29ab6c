"""The dialogs of the chatterbot corpus, and a bot that speaks the second part in each of them.

The bot knows only its context: the id names the dialog, `misc` holds the position. A turn that is lost, doubled or out
of order therefore shows as a wrong reply. Read by the bot, by the client process and by the test alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from chatterbot_corpus.corpus import DATA_DIRECTORY

from interfaces.context import Context

DATA = Path(DATA_DIRECTORY)


@dataclass(frozen=True, slots=True)
class Dialog:
    """One conversation: the user speaks first, then the bot, in turns."""

    ctx_id: str
    utterances: tuple[str, ...]

    @property
    def turns(self) -> list[tuple[str, str | None]]:
        """What the user says and what the bot answers; it has no answer to an odd last utterance."""
        said, answers = self.utterances[0::2], self.utterances[1::2]
        return [(text, answers[n] if n < len(answers) else None) for n, text in enumerate(said)]


def languages() -> list[str]:
    """All languages of the corpus."""
    return sorted(path.name for path in DATA.iterdir() if path.is_dir())


@cache
def read_language(language: str) -> dict[str, Dialog]:
    """The dialogs of a language by context id. Raises `ValueError` for an entry that is no dialog."""
    found = [dialog for path in sorted((DATA / language).glob("*.yml")) for dialog in _read(language, path)]
    return {dialog.ctx_id: dialog for dialog in found}


def _read(language: str, path: Path) -> Iterator[Dialog]:
    content: dict[str, Any] = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
    for number, entry in enumerate(content["conversations"]):
        # Some entries are a line that lacks its second dash: a dialog of one utterance.
        utterances = [entry] if isinstance(entry, str) else entry
        if not isinstance(utterances, list) or not utterances or not all(isinstance(text, str) for text in utterances):
            raise ValueError(f"{path.name}, conversation {number} is no list of utterances: {entry!r}")
        yield Dialog(f"{language}/{path.stem}/{number}", tuple(utterances))


async def answer(ctx: Context) -> str | None:
    """Give the dialog's next utterance; say what is wrong where the context is not in step with the dialog."""
    utterances = read_language(ctx.id.partition("/")[0])[ctx.id].utterances
    position: int = ctx.misc.get("position", 0)
    said, expected = ctx.last_request.text, utterances[position] if position < len(utterances) else None
    if said != expected or position != 2 * (ctx.current_turn_id - 1):
        return f"out of step: {said!r} in turn {ctx.current_turn_id} at position {position}"
    ctx.misc["position"] = position + 2
    return utterances[position + 1] if position + 1 < len(utterances) else None
