"""`switchboard health`: whether the worker that touches a file is live, for probes that run a command.

It imports nothing of the worker, so that a probe every few seconds costs little.
"""

import time
from pathlib import Path

import click

from interfaces.errors import ExitCode

STALE_SECONDS = 10.0
"""As an event loop's that has not turned for so long (a test compares the two)."""


@click.command("health", epilog="\b\nExamples:\n  switchboard health --file /run/switchboard/alive")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    envvar="SWITCHBOARD_HEALTH_FILE",
    required=True,
    help="The file.  [env: SWITCHBOARD_HEALTH_FILE]",
)
def command(file: Path) -> None:
    """Say whether a worker is live, by the file that it touches.

    That is the one SWITCHBOARD_HEALTH_FILE names, and it is touched while the worker's event loop turns. Ends with 0
    where that was less than 10 seconds ago, and with 1 otherwise.
    """
    try:
        age = time.time() - file.stat().st_mtime
    except OSError as error:
        click.echo(f"not live: {error}", err=True)
        raise click.exceptions.Exit(ExitCode.FAILED) from error
    if age >= STALE_SECONDS:
        click.echo(f"not live: {file} was touched {age:.0f} s ago", err=True)
        raise click.exceptions.Exit(ExitCode.FAILED)
    click.echo(f"live: {file} was touched {max(0.0, age):.1f} s ago")
