"""Keeps passwords off command lines, which every user of a machine can read in its list of processes."""

import re
from typing import Any, Final

import click
from click.core import ParameterSource

from interfaces.brokers.nodes import node_urls
from worker.secret_files import SUFFIX

_BEFORE_HOST: Final = re.compile(r"://[^@/?#]*:[^@]+@")
_KEY: Final = re.compile(r"(?:^|,)\s*[\w-]{1,32}:[\w+/=]{20,}\s*(?:,|$)")
_OPTION: Final = re.compile(r"[?&][a-z_]*password=[^&]", re.IGNORECASE)


def has_password(text: str) -> bool:
    """Whether there is a password in a URL, be it readable or not, or a key in what is none."""
    if _KEY.search(text):
        return True
    return any(_BEFORE_HOST.search(node) or _OPTION.search(node) for node in node_urls(text))


def refusing_passwords(variable: str, *, is_setting: bool = True) -> Any:
    """A click callback that takes a value with a password or key from the environment `variable` only."""

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        is_typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if value is not None and is_typed and has_password(value):
            file = f", or a file that holds it as {variable}{SUFFIX}" if is_setting else ""
            raise click.BadParameter(
                "there is a password in it, and every user of this machine can read command lines: "
                f"give it as {variable}{file}. Change the password if others use this machine.",
                context,
                parameter,
            )
        return value

    return check
