"""Node's AMQP client for the tests that speak the wire contract from another language.

`npm ci` installs exactly what `tests/services/node/package-lock.json` pins, once, in a directory beside Python's
environment. It never reaches for a global installation. Called by `tests/conftest.py`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.services.packages import CannotProvide, require_programs

PINS = Path(__file__).parent / "node"
INSTALL_SECONDS = 300


def install_amqplib() -> Path:
    """The directory whose `node_modules` holds `amqplib`. Raises `CannotProvide`."""
    require_programs({"node": "nodejs", "npm": "npm"})
    directory = Path(sys.prefix) / "switchboard-node"
    lock = (PINS / "package-lock.json").read_bytes()
    stamp = directory / "installed-from.json"
    if stamp.exists() and stamp.read_bytes() == lock:
        return directory
    directory.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(PINS / name, directory / name)
    try:
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"],
            cwd=directory,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotProvide(f"npm did not install amqplib within {INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        raise CannotProvide(f"npm could not install amqplib: {done.stderr.strip()[-500:]}")
    stamp.write_bytes(lock)
    return directory
