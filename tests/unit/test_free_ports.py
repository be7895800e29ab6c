"""Ports for the tests' servers: none is given twice, not even to another process."""

import subprocess
import sys

import pytest

from tests.services import servers

SOME = range(31_000, 31_250)
"""So few that two who did not know of each other would have many of them both."""


def test_a_port_is_given_once_here_and_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PORTS", SOME)
    mine = [servers.free_port() for _ in range(80)]
    there = f"from tests.services import servers as s; s.PORTS = {SOME!r}; print(*[s.free_port() for _ in range(80)])"
    found = subprocess.run([sys.executable, "-c", there], capture_output=True, text=True, check=True)
    others = [int(port) for port in found.stdout.split()]
    assert len({*mine, *others}) == 160
