"""The units of `deploy/systemd`, as systemd's own tools judge them, and true to the code."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.services.command import ROOT
from tests.services.packages import require_programs
from worker.cli.ending import CLOSING_SECONDS
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings
from worker.supervisor import KILL_MARGIN_SECONDS, NO_RESTART

UNIT = ROOT / "deploy/systemd/switchboard-worker@.service"
INSTALLED = "/opt/switchboard/bin/switchboard"
MOST_EXPOSED = 20
"""Of 100, in tenths of the figure that is shown: what remains is the network, and the host's files to read."""


@pytest.fixture
def unit() -> dict[str, list[str]]:
    """Values by key, in their order; every key stands in one section only."""
    values = defaultdict(list)
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        values[key].append(value)
    return values


def analyze(tmp_path: Path, text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """What `systemd-analyze` says of the unit, with a program that is there in place of the one that is installed."""
    require_programs({"systemd-analyze": "systemd"})
    program = tmp_path / "switchboard"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(INSTALLED, str(program)))
    command = ["systemd-analyze", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_verifies_the_unit_without_a_word(tmp_path: Path) -> None:
    done = analyze(tmp_path, UNIT.read_text(), "verify", "--man=no")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("TimeoutStopSec=45", "TimeoutStopSecs=45"),
        ("KillMode=mixed", "KillMode=some"),
        (INSTALLED, "/nowhere/switchboard"),
    ],
)
def test_what_is_wrong_in_a_unit_would_be_told(tmp_path: Path, right: str, wrong: str) -> None:
    done = analyze(tmp_path, UNIT.read_text().replace(right, wrong), "verify", "--man=no")
    assert done.returncode != 0 or done.stderr != ""


def test_the_service_is_hardly_exposed(tmp_path: Path) -> None:
    security = ("security", "--offline=yes", "--no-pager")
    done = analyze(tmp_path, UNIT.read_text(), *security, f"--threshold={MOST_EXPOSED}")
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout
    bare = "[Service]\nExecStart=/bin/true\n"
    assert analyze(tmp_path, bare, *security, f"--threshold={MOST_EXPOSED}").returncode != 0


def test_a_worker_has_longer_to_end_than_it_takes_for_it_and_is_told_once(unit: dict[str, list[str]]) -> None:
    longest = Settings.model_fields["drain_timeout"].default + CLOSING_SECONDS + KILL_MARGIN_SECONDS
    [seconds] = unit["TimeoutStopSec"]
    assert float(seconds) > longest
    assert (unit["KillSignal"], unit["KillMode"]) == (["SIGTERM"], ["mixed"])


def test_what_a_restart_cannot_help_is_not_started_again(unit: dict[str, list[str]]) -> None:
    assert unit["Restart"] == ["on-failure"]
    assert {int(code) for code in unit["RestartPreventExitStatus"][0].split()} == {int(code) for code in NO_RESTART}


def test_the_variables_are_settings_and_secrets_come_as_credentials(unit: dict[str, list[str]]) -> None:
    variables = dict(entry.split("=", 1) for entry in unit["Environment"])
    ours = {name: value for name, value in variables.items() if name.startswith(ENV_PREFIX)}
    assert {
        name.removeprefix(ENV_PREFIX).removesuffix("_FILE").lower() for name in ours
    } <= Settings.model_fields.keys()
    credentials = {f"%d/{entry.partition(':')[0]}" for entry in unit["LoadCredential"]}
    assert {value for name, value in ours.items() if name.endswith("_FILE")} == credentials
    assert unit["ExecStart"] == [f"{INSTALLED} run ${{APP}}"]
    [cache] = unit["CacheDirectory"]
    assert ours[f"{ENV_PREFIX}ATTACHMENTS_DIRECTORY"] == f"%C/{cache}"
