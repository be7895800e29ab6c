"""The first command of every section of docs/runbook.md, typed while all is well: each works and changes nothing."""

import re
import shlex

import pytest

from tests.integration.conftest import StartWorker
from tests.services.command import run_command
from tests.services.prometheus import ROOT

SECTIONS = re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text())
FIRST = {name: re.search(r"```bash\nswitchboard ([^\n]+)", text) for name, text in SECTIONS}


@pytest.fixture
async def settings(start_worker: StartWorker, worker_settings: dict[str, str]) -> dict[str, str]:
    """The environment of somebody who operates a namespace with a worker."""
    await (await start_worker("tests.bots.troubled:answer")).ready()
    return worker_settings


async def test_the_first_command_of_every_section_works(settings: dict[str, str]) -> None:
    typed = {found[1].partition("#")[0].strip() for found in FIRST.values() if found}
    assert all(FIRST.values())
    assert {command.split()[0] for command in typed} == {"status", "doctor", "dead"}
    for command in sorted(typed):
        done = await run_command(*shlex.split(command), settings=settings)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stdout.strip(), command
