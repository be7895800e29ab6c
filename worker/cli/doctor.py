"""`switchboard doctor`: checks settings and both servers one by one, and says how to mend what is wrong."""

import asyncio
import os
from contextlib import aclosing
from typing import Any, Final

import click

from interfaces.errors import ExitCode, SettingsInvalid
from worker.cli.commands import KEY_FIELDS, SERVER_FIELDS, Command, examples, setting_flags
from worker.cli.doctor_rabbitmq import check_rabbitmq
from worker.cli.doctor_redis import check_redis
from worker.cli.findings import Finding, Status, fail, ok, warn
from worker.cli.output import json_option, print_json, print_line
from worker.cli.passwords import refusing_passwords
from worker.secret_files import SUFFIX
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings, load_settings

STYLES: Final[dict[Status, str]] = {"ok": "green", "skip": "dim", "warn": "yellow", "fail": "bold red"}


@click.command(
    "doctor",
    cls=Command,
    epilog=examples(
        "switchboard doctor",
        "switchboard doctor --management-url http://rabbitmq:15672",
        "switchboard doctor --json | jq '.checks[] | select(.status != \"ok\")'",
    ),
)
@json_option
@click.option(
    "--management-url",
    metavar="URL",
    callback=refusing_passwords("SWITCHBOARD_AMQP_URL", is_setting=False),
    help="RabbitMQ's management API, to compare bindings and policies; user and password are those of the AMQP URL.",
)
@setting_flags(*SERVER_FIELDS, *KEY_FIELDS)
def command(as_json: bool, management_url: str | None, **flags: str | None) -> None:
    """Check both servers and say how to mend what is wrong.

    Settings, versions, permissions, topology and whether it has drifted, consumers, persistence, clocks, other workers
    and stored contexts. It changes nothing: a queue and a context it makes to try its permissions are deleted again.
    With a worker's permissions it leaves out what only an operator may see, and says so (skip).

    Warnings do not count; where a check fails, the exit code is that of the first: 2 for settings, 4 for RabbitMQ, 5
    for Redis and what other workers say there.
    """
    code = asyncio.run(_examine(flags, management_url, as_json))
    raise click.exceptions.Exit(code)


async def _examine(flags: dict[str, str | None], management_url: str | None, as_json: bool) -> ExitCode:
    code = ExitCode.OK
    findings: list[Finding] = []

    def note(finding: Finding, when_failed: ExitCode) -> None:
        nonlocal code
        findings.append(finding)
        if finding.status == "fail" and code is ExitCode.OK:
            code = when_failed
        if not as_json:
            _print(finding)

    settings, finding = _check_settings(flags)
    note(finding, ExitCode.USAGE)
    if settings is not None:
        rabbitmq, redis = check_rabbitmq(settings, management_url), check_redis(settings)
        for checking, when_failed in ((rabbitmq, ExitCode.BROKER), (redis, ExitCode.STORE)):
            # Closed here, not by the garbage collector: printing may fail on a pipe whose reader has gone.
            async with aclosing(checking) as results:
                async for finding in results:
                    note(finding, when_failed)
    if as_json:
        print_json({"ok": code is ExitCode.OK, "checks": findings})
    return code


def _check_settings(flags: dict[str, Any]) -> tuple[Settings | None, Finding]:
    try:
        settings = load_settings(**flags)
    except SettingsInvalid as error:
        return None, fail("settings", str(error), "correct the variables or flags named")
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{name}{SUFFIX}" for name in known}
    unknown = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known)
    if unknown:
        return settings, warn("settings", f"not a setting: {', '.join(unknown)}", "correct or unset the variable")
    return settings, ok("settings", f"namespace {settings.namespace!r}")


def _print(finding: Finding) -> None:
    print_line((f"{finding.status:<4}  ", STYLES[finding.status]), (f"{finding.check}: ", "bold"), finding.detail)
    if finding.mend is not None:
        print_line("      mend: ", finding.mend)
