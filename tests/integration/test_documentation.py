"""Every page of the documentation does what it says: its code blocks run in their order, on real servers.

What cannot run here is parsed instead (`tests/unit/test_code_blocks.py`), and the end of the run tells how many of a
page's blocks ran, how many were only checked, and why.
"""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from interfaces.topology import Topology
from tests.code_blocks import PAGES, ROOT, blocks_of, kinds
from tests.conformance.broker_probes import delete_everything
from tests.conformance.store_probes import delete_namespace
from tests.integration.conftest import Report
from tests.page_script import OUTPUT, Servers, missing_output, write

SECONDS = 80
NAMED = ("examples", "deploy")
"""What commands for the top of the repository may name there."""


@pytest.fixture
async def reader(amqp_url: str, redis_url: str) -> AsyncIterator[Servers]:
    """The servers, without the namespace that everybody begins with."""
    await clear(amqp_url, redis_url)
    yield Servers(amqp_url, redis_url)
    await clear(amqp_url, redis_url)


async def clear(amqp_url: str, redis_url: str) -> None:
    for generation in (1, 2):
        await delete_everything(amqp_url, Topology("switchboard", 64, generation))
    await delete_namespace(redis_url, "switchboard")


@pytest.fixture
def directory(tmp_path: Path, node_amqplib: Path) -> Path:
    """What a reader sees as the top of the repository, to write into at will."""
    for name in NAMED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "node_modules").symlink_to(node_amqplib / "node_modules")
    return tmp_path


@contextlib.contextmanager
def terminal_that_says_yes() -> Iterator[int]:
    """Standard input for commands that ask."""
    master, slave = pty.openpty()
    os.write(master, b"yes\n" * 20)
    try:
        yield slave
    finally:
        os.close(master)
        os.close(slave)


def run(script: str, directory: Path, environ: Mapping[str, str]) -> int:
    """Run it to its end, and end whatever it leaves; its exit code, or the negative number of a signal."""
    with (directory / OUTPUT).open("w") as output, terminal_that_says_yes() as stdin:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=directory,
            env=environ,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_its_reader_to_type_works(
    page: Path, directory: Path, reader: Servers, report: Report
) -> None:
    blocks = blocks_of(page)
    script = write(blocks, directory, reader)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{directory}",
        "SWITCHBOARD_AMQP_URL": reader.amqp_url,
        "SWITCHBOARD_REDIS_URL": reader.redis_url,
    }
    code = run(script, directory, environ)
    output = (directory / OUTPUT).read_text(errors="replace")
    assert code == 0, f"{script}\n{output}"
    assert missing_output(blocks, output) == [], output
    report(", ".join(f"{number} {kind}" for kind, number in kinds(blocks).items()))
