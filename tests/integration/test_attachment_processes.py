"""Attachments as real processes move them: the memory they take, and one cache directory for several that die."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import pytest

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import AttachmentStore
from interfaces.local_files import PARTIAL

ROOT = Path(__file__).parents[2]
MODULE = "tests.integration.attachment_processes"
MIB = 1024 * 1024
MEMORY_LIMIT = 150 * MIB


@pytest.mark.parametrize(("count", "size"), [(10, 20 * MIB), pytest.param(200, MIB, marks=pytest.mark.long)])
def test_two_hundred_mebibytes_of_attachments_take_less_than_150_of_memory(
    tmp_path: Path, count: int, size: int
) -> None:
    url = (tmp_path / "store").as_uri()
    child = subprocess.run(
        [sys.executable, "-m", MODULE, "move", url, str(tmp_path), str(count), str(size)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < MEMORY_LIMIT
    stored = [path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert sum(stored) == count * size == 200 * MIB


def bytes_on_disk(directory: Path) -> int:
    sizes: dict[int, int] = {}
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            info = path.lstat()
            sizes[info.st_ino] = info.st_size
    return sum(sizes.values())


async def start(*arguments: object) -> Process:
    command = [sys.executable, "-m", MODULE, *map(str, arguments)]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def test_processes_share_one_cache_directory_while_some_are_killed(tmp_path: Path) -> None:
    store = AttachmentStore((tmp_path / "store").as_uri(), max_bytes=MIB, ttl=3600)
    sizes = [random.randrange(1, 256 * 1024) for _ in range(40)]
    references = [await store.put(os.urandom(size)) for size in sizes]
    names = "".join(f"{reference}\n" for reference in references).encode()
    directory, bound = tmp_path / "cache", 2 * MIB
    assert sum(sizes) > bound  # so each process evicts what the others read

    async def churning() -> Process:
        process = await start("churn", store.url, directory, bound)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(names)
        process.stdin.close()
        assert await process.stdout.readline() == b"running\n"
        return process

    processes = [await churning() for _ in range(3)]
    most = 0
    for _ in range(3):
        stalled = await start("stall", directory)
        assert stalled.stdout is not None
        assert await stalled.stdout.readline() == b"writing\n"
        killed = processes.pop(0)
        for process in (killed, stalled):
            process.kill()
            assert await process.wait() == -signal.SIGKILL
        processes.append(await churning())
        for _ in range(20):
            most = max(most, bytes_on_disk(directory))
            await asyncio.sleep(0.01)
    verified = []
    for process in processes:
        process.terminate()
        output, log = await process.communicate()
        assert process.returncode == 0, log.decode()
        verified.append(int(output))
    assert all(verified)
    left = list(directory.glob(f"{PARTIAL}*"))
    assert len(left) >= 3  # what each killed process had begun
    # Beside the bound: what every task of every process is just adding, and what those killed had.
    assert most <= bound + len(left) * MIB + 3 * 4 * 256 * 1024
    for path in left:
        os.utime(path, (time.time() - 4000,) * 2)
    await AttachmentCache(directory, max_bytes=bound).trim()
    assert not list(directory.glob(f"{PARTIAL}*"))
    assert bytes_on_disk(directory) <= bound
