"""The command `switchboard` as a process that runs to its end, with these settings and no others."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60


def run_command_now(*arguments: str, settings: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `switchboard ARGUMENTS`. Raises `subprocess.TimeoutExpired` after a minute."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
    command = [sys.executable, "-m", "worker.cli", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


async def run_command(*arguments: str, settings: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The same, beside the event loop."""
    return await asyncio.to_thread(run_command_now, *arguments, settings=settings)
