"""What every subcommand has in common: its error handling, and its flags made from the fields of `Settings`.

Names, defaults and descriptions are never written a second time, and a flag's value goes to `Settings` as text, so that
there is one parser and all faults are reported together.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from interfaces.cli import printable
from interfaces.errors import AskTimeout, ExitCode, Fatal, MisuseError, SwitchboardError, Unroutable
from worker.cli.logs import quiet_libraries
from worker.cli.passwords import refusing_passwords
from worker.secret_files import SUFFIX
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings, load_settings

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

TLS_FIELDS: Final = ("tls_ca", "tls_cert", "tls_key")
BROKER_FIELDS: Final = ("amqp_url", "namespace", "publish_timeout", *TLS_FIELDS)
TOPOLOGY_FIELDS: Final = (*BROKER_FIELDS, "shards", "prefetch", "max_length")
STORE_FIELDS: Final = ("redis_url", "namespace", "redis_timeout", *TLS_FIELDS)
KEY_FIELDS: Final = ("encryption_keys",)
LOG_FIELDS: Final = ("log_format", "log_hash_ids")
ATTACHMENT_FIELDS: Final = tuple(name for name in Settings.model_fields if name.startswith(("attachments_", "fetch_")))
SERVER_FIELDS: Final = tuple(dict.fromkeys((*TOPOLOGY_FIELDS, *STORE_FIELDS)))
RESHARD_FIELDS: Final = tuple(name for name in SERVER_FIELDS if name not in ("shards", "prefetch"))
ALL_FIELDS: Final = tuple(Settings.model_fields)


class Command(click.Command):
    """A subcommand whose expected errors are messages; an unexpected one keeps its traceback and ends with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Raises `Exit` where it failed, with the error already told, and after Ctrl-C."""
        quiet_libraries()
        try:
            return super().invoke(ctx)
        except SwitchboardError as error:
            tell(error)
            raise click.exceptions.Exit(exit_code(error)) from error
        except KeyboardInterrupt as error:
            click.echo(err=True)
            raise click.exceptions.Exit(INTERRUPTED) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and its settings in a section of their own."""
        own: list[tuple[str, str]] = []
        settings: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (settings if isinstance(parameter, _SettingOption) else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        if settings:
            with formatter.section("Settings"):
                formatter.write_dl(settings)
                formatter.write_paragraph()
                formatter.write_text(
                    "A flag comes before its environment variable. Command lines are visible to every user of the "
                    "machine, so a URL with a password is taken from the environment only, or from a file named there."
                )


class Group(click.Group):
    """A subcommand with subcommands of its own."""

    command_class = Command


class _SettingOption(click.Option):
    """A flag that stands for a field of `Settings`."""


def exit_code(error: SwitchboardError) -> ExitCode:
    """The exit code that tells a supervisor or a script what to do about `error`."""
    if isinstance(error, Fatal):
        return error.exit_code
    if isinstance(error, MisuseError):
        return ExitCode.USAGE
    return ExitCode.NO_REPLY if isinstance(error, AskTimeout) else ExitCode.FAILED


def tell(error: SwitchboardError) -> None:
    """Print `error` on standard error, and how to mend it where the error itself does not know."""
    hint = ". Start a worker, or declare the queues with `switchboard topology apply`."
    click.echo(f"Error: {printable(str(error))}{hint if isinstance(error, Unroutable) else ''}", err=True)


def examples(*lines: str) -> str:
    """Worked examples for the foot of a help text, printed as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def setting_flags(*fields: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a flag for each of `fields`; the function gets them as keyword arguments, `None` where not given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(fields):
            function = _flag(name, Settings.model_fields[name])(function)
        return function

    return decorate


def with_settings(*fields: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a flag for each of `fields`, and pass what they and the environment say to the function as `settings`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name) for name in fields}
            return function(*args, settings=load_settings(**flags), **kwargs)

        return setting_flags(*fields)(call)

    return decorate


def _flag(name: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    variable = f"{ENV_PREFIX}{name.upper()}"
    is_secret = field.annotation is SecretStr
    names = f"{variable} or {variable}{SUFFIX}" if is_secret else variable
    notes = [f"env: {names}", *([] if default is None else [f"default: {_shown(default)}"])]
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        cls=_SettingOption,
        metavar=_metavar(name, field),
        callback=refusing_passwords(variable) if is_secret else None,
        help=f"{field.description}  [{'; '.join(notes)}]",
    )


def _shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(name: str, field: FieldInfo) -> str:
    kinds: Sequence[tuple[type, str]] = ((float, "NUMBER"), (int, "INTEGER"))
    if name.endswith("_url"):
        return "URL"
    if name in TLS_FIELDS:
        return "FILE"
    return next((word for kind, word in kinds if field.annotation in (kind, kind | None)), "TEXT")
