"""docs/reference.md, all of it from the code: `make reference` writes it.

Settings come from the model, commands from click, codes from their enumerations with the words that stand below each
member in the source. Nothing of the machine that writes it may get into it. `tests/unit/test_reference_page.py` fails
where the page is not what the code says.
"""

import ast
import inspect
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, get_args

import annotated_types
import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from interfaces.errors import ExitCode, Reason
from worker.cli import switchboard
from worker.cli.commands import INTERRUPTED, TLS_FIELDS
from worker.secret_files import SUFFIX
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings

PAGE: Final = Path(__file__).parents[1] / "docs/reference.md"

KINDS: Final[Sequence[tuple[type, str]]] = (
    (bool, "true or false"),
    (int, "integer"),
    (float, "number"),
    (Path, "path"),
    (SecretStr, "secret"),
    (str, "text"),
)
BOUNDS: Final[Sequence[tuple[type, str, str]]] = (
    (annotated_types.Ge, "ge", "from"),
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Le, "le", "to"),
    (annotated_types.Lt, "lt", "below"),
)


def page() -> str:
    """The documentation's page."""
    return f"""# Reference

Written by `make reference` from the code.

## Settings

Every setting is an environment variable, and a flag of the commands it matters to: `{ENV_PREFIX}SHARDS` is `--shards`,
which comes first. A secret may stand in a file: its variable with `{SUFFIX}` names that. A wrong setting ends a command
with exit code {ExitCode.USAGE.value}, all faults told at once. What they are for: [limits](limits.md),
[durability](durability.md), [failures](failures.md), [attachments](attachments.md), [security](security.md).

{settings()}
## Commands

{commands()}
## Exit codes

Of every command; supervisors may act on them. After Ctrl-C it is {INTERRUPTED}, as of any program.

{codes(ExitCode, "code")}
## Reasons

Why a request is a dead letter: `x-switchboard-reason` there, `error.code` of the error reply, `--reason` of
`switchboard dead`. With the numbers that are defaults, in the [wire contract](wire-contract.md#dead-letters).

{codes(Reason, "reason")}"""


def settings() -> str:
    """The table of settings."""
    rows = [
        f"| `{ENV_PREFIX}{name.upper()}` | {_values(name, field)} | {_default(field)} | {_prose(field.description)} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return "| variable | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _values(name: str, field: FieldInfo) -> str:
    """What it may be, in words."""
    annotation: Any = next((kind for kind in get_args(field.annotation) if kind is not type(None)), field.annotation)
    if name in TLS_FIELDS:
        return "path"
    if issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    words = [next(word for kind, word in KINDS if issubclass(annotation, kind))]
    for mark in field.metadata:
        words += [f"{word} {getattr(mark, name):,}" for kind, name, word in BOUNDS if isinstance(mark, kind)]
        words += [f"`{pattern}`"] if (pattern := getattr(mark, "pattern", None)) else []
    return " ".join(words)


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if value is None or value == "":
        return "not set"
    if isinstance(value, Path):
        return f"`{value}`".replace(tempfile.gettempdir(), "TMPDIR").replace(str(os.getuid()), "UID")
    return f"`{value:g}`" if isinstance(value, float) else f"`{value.value if isinstance(value, Enum) else value}`"


def commands() -> str:
    """A section for every command."""
    return "\n".join(_command(context) for context in _every(click.Context(switchboard, info_name="switchboard")))


def _every(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from _every(click.Context(command, info_name=name, parent=context))


def _command(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"### `{context.command_path}`", f"`{usage}`", *_paragraphs(command.help)]
    options = [option for option in command.params if isinstance(option, click.Option)]
    own = [option for option in options if not _is_setting(option)]
    records = [record for option in own if (record := option.get_help_record(context)) is not None]
    if records:
        rows = [f"| {_prose(f'`{names}`')} | {_prose(meaning)} |" for names, meaning in records]
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    used = [f"`{option.opts[0]}`" for option in options if _is_setting(option)]
    if len(used) == len(Settings.model_fields):
        parts.append("All [settings](#settings) are flags of it.")
    elif used:
        parts.append(f"[Settings](#settings): {', '.join(used)}.")
    examples = (command.epilog or "").partition("Examples:\n")[2].partition("\n\n")[0]
    if examples:
        parts.append(f"```bash\n{inspect.cleandoc(examples).replace(2 * chr(92), chr(92))}\n```")
    return "\n\n".join(parts) + "\n"


def _is_setting(option: click.Option) -> bool:
    return f"env: {ENV_PREFIX}" in (option.help or "")


def _paragraphs(help_text: str | None) -> list[str]:
    return [_prose(" ".join(text.split())) for text in inspect.cleandoc(help_text or "").split("\n\n")]


def _prose(text: str | None) -> str:
    """Text of a help, with nothing in it that Markdown would take for its own. URLs and what stands in backticks are
    code."""
    parts = re.sub(r"(?<![`\w])[a-z0-9+]+://(?:\S*[^\s,;.)`])?", r"`\g<0>`", text or "").split("`")
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


def codes(kind: type[Enum], heading: str) -> str:
    """The table of an enumeration."""
    meanings = _meanings(kind)
    rows = [f"| `{member.value}` | {_prose(meanings[member.name])} |\n" for member in kind]
    return f"| {heading} | meaning |\n|---|---|\n" + "".join(rows)


def _meanings(kind: type[Enum]) -> dict[str, str]:
    """The words below each member. Raises `ValueError` where a member has none."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for member, words in zip(body.body, [*body.body[1:], None], strict=True):
        match member, words:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    missing = [member.name for member in kind if member.name not in found]
    if missing:
        raise ValueError(f"{kind.__name__} does not say what these are: {', '.join(missing)}")
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
