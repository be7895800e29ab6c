"""The fenced code blocks of README.md and docs/, and what can be said of each without running it.

A block either runs in `tests/integration/test_documentation.py`, in the order of its page, or a rule here names why it
cannot; there is no third way. Blocks of the shell are then still parsed, and the command's own parser reads every call
of `switchboard` in them.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from markdown_it import MarkdownIt

from worker.cli import SUBCOMMANDS, switchboard

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted(
    [ROOT / "README.md", *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
)

SHELL: Final = "bash"
DATA: Final = ("json", "yaml", "toml", "ini")
SHOWN: Final = ("text", "promql", "mermaid", "dockerfile")
"""Nothing to run. A `text` that follows a block of the shell is what that prints."""
LANGUAGES: Final = (SHELL, "python", "javascript", *DATA, *SHOWN)

ONLY_CHECKED: Final[Sequence[tuple[str, str]]] = (
    (r"^make ", "a target that CI runs itself"),
    (r"\b(docker|podman)\b", "a container engine"),
    (r"\b(kubectl|kustomize|helm)\b", "a cluster"),
    (r"\b(systemctl|journalctl|systemd-\w+|apt|apt-get|useradd)\b", "changes the machine"),
    (r"\b(pip|npm) (install|ci)\b", "installs packages"),
    (r"\b(rabbitmqctl|redis-cli|rabbitmq-\w+|promtool|amtool)\b", "administers servers"),
    (r"\.\.\.|<[a-z]|\b(PASSWORD|TOKEN)\b", "something to fill in"),
    (r"\w://(?!([^@\s/]+@)?(127\.0\.0\.1|localhost|/))", "servers elsewhere"),
)
"""What a block of the shell has that cannot be had here, and its name in the list at the end of the run."""
EXAMPLES: Final = ("docs/reference.md",)
"""Pages whose blocks of the shell are examples with made-up names."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that its first line says it is."""
        found = re.match(r"(?:#|//) ([\w./-]+\.\w+)\n", self.text)
        return found[1] if found else None

    @property
    def only_checked(self) -> str | None:
        """Why it is not run; `None` where it is, or where nothing in it could."""
        if self.language != SHELL:
            return None
        if self.page in EXAMPLES:
            return "examples of a help"
        return next((why for pattern, why in ONLY_CHECKED if re.search(pattern, self.text, re.MULTILINE)), None)


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order. Directives of the site are not among them: its build runs those."""
    fences = [token for token in MarkdownIt().parse(page.read_text()) if token.type == "fence"]
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in fences
        if not token.info.startswith("{")
    ]


def calls(script: str) -> Iterator[list[str]]:
    """The arguments of every call of `switchboard` in a script, by whatever it is started."""
    for words in _simple_commands(script):
        names = [Path(word).name for word in words]
        if "switchboard" not in names:
            continue
        place = names.index("switchboard")
        is_first = all("=" in word for word in words[:place])
        if is_first or (place + 1 < len(words) and words[place + 1] in SUBCOMMANDS):
            yield words[place + 1 :]


def _simple_commands(script: str) -> Iterator[list[str]]:
    text = re.sub(r"(?<!\S)#.*$", "", script.replace("\\\n", " "), flags=re.MULTILINE)
    text = re.sub(r"(?<=\s)\d?>{1,2}(&\d|\s*[^\s'\"]+)", "", text)
    words = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    command: list[str] = []
    for word in words:
        if set(word) <= set("();<>|&\n"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


def complaint(arguments: Sequence[str]) -> str | None:
    """What the command's own parser says against these arguments; `None` where it takes them."""
    command: click.Command | None = switchboard
    context = click.Context(switchboard, info_name="switchboard")
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        command = command.get_command(context, name)
        if command is None:
            return f"there is no command {name}"
        context = click.Context(command, info_name=name, parent=context)
    assert command is not None
    try:
        command.parse_args(context, rest)
    except click.exceptions.Exit:
        return None  # --help
    except click.BadParameter as error:
        is_absent = isinstance(error.param, click.Parameter) and isinstance(error.param.type, click.File)
        return None if is_absent else error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return None


def unmade_targets(script: str) -> list[str]:
    """Targets of `make` that it names and that there are not."""
    made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [name for name in re.findall(r"^make ([a-z-]+)", script, re.MULTILINE) if name not in made]


def kinds(blocks: Sequence[Block]) -> Mapping[str, int]:
    """How many of them run, are only checked and why, or are shown."""
    found: dict[str, int] = {}
    for block in blocks:
        if block.language in (*DATA, *SHOWN):
            kind = "parsed" if block.language in DATA else "shown"
        else:
            kind = "ran" if block.only_checked is None else f"only checked ({block.only_checked})"
        found[kind] = found.get(kind, 0) + 1
    return found
