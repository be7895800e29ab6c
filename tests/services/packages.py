"""Installs Debian packages that the tests need and the machine lacks, where the tests run as root.

It never starts the services that come with a package, and never hides that something is missing: whoever cannot
install gets `CannotProvide` with the command to type. Called by `tests/services/local.py` and `tests/services/node.py`.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

INSTALL_SECONDS = 600
POLICY = Path("/usr/sbin/policy-rc.d")
LOCK = Path(tempfile.gettempdir(), f"switchboard-tests-install-{os.getuid()}.lock")


class CannotProvide(Exception):
    """What the tests need cannot be had on this machine; the text says why and what would mend it."""


def require_programs(package_of_program: Mapping[str, str], path: str | None = None) -> None:
    """Install the packages of those programs that are not on `path`. Raises `CannotProvide` naming what is missing."""
    if not _missing(package_of_program, path):
        return
    # Tests run in several processes, and apt refuses to work for two of them at a time.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if packages := _missing(package_of_program, path):
            _install(packages)


def _missing(package_of_program: Mapping[str, str], path: str | None) -> list[str]:
    missing = {package for program, package in package_of_program.items() if not shutil.which(program, path=path)}
    return sorted(missing)


def _install(packages: Sequence[str]) -> None:
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0:
        raise CannotProvide(f"missing here, and only root can install it: sudo {command}")
    if not shutil.which("apt-get"):
        raise CannotProvide(f"{', '.join(packages)} missing, and this is no Debian or Ubuntu to install them on")
    with _services_kept_off():
        _run("apt-get update")
        _run(command)


def _run(command: str) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command.split(), env=environ, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise CannotProvide(f"`{command}` did not end within {INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        raise CannotProvide(f"`{command}` failed: {done.stderr.strip()[-500:]}")


@contextmanager
def _services_kept_off() -> Iterator[None]:
    """Packages of servers start them when installed unless this file says no; an administrator's own file stays."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
