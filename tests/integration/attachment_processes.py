"""Processes that move attachments, to be measured and killed: `python -m tests.integration.attachment_processes ...`

move STORE_URL DIRECTORY COUNT SIZE     put and get COUNT files of SIZE bytes each; prints the most memory it had
churn STORE_URL DIRECTORY CACHE_BYTES   localize and fetch what standard input names, in random order, until it ends;
                                        prints how many it verified
stall DIRECTORY                         begin a file in the cache, print "writing", and never go on
"""

import asyncio
import hashlib
import random
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.messages import Document, Message
from interfaces.references import Reference
from worker.attachments import open_transfer
from worker.settings import load_settings

TASKS = 4
BLOCK = 1024 * 1024


def transfer(url: str, directory: str, cache_bytes: int) -> AttachmentTransfer:
    return open_transfer(
        load_settings(
            amqp_url="amqp://127.0.0.1",
            attachments_url=url,
            attachments_directory=directory,
            attachments_cache_bytes=cache_bytes,
        )
    )


def peak_memory() -> int:
    """Bytes of memory at most so far. Not `ru_maxrss`: that begins with what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for block in range(0, size, BLOCK):
            file.write(random.randbytes(min(BLOCK, size - block)))


def digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def move(url: str, directory: str, count: int, size: int) -> None:
    moving = transfer(url, f"{directory}/cache", 32 * 1024 * 1024)

    async def there_and_back(number: int) -> None:
        path = Path(directory, f"file-{number}")
        await asyncio.to_thread(write, path, size)
        sent = await moving.upload(Message(attachments=[Document(source=path)]))
        reference = Reference.parse(sent.model_dump(mode="json")["attachments"][0]["id"])
        assert reference is not None
        assert len(await moving.fetch(reference)) == size
        received = await moving.localize(sent)
        local = received.model_dump(mode="json")["attachments"][0]["source"]
        assert await asyncio.to_thread(digest, local) == reference.digest

    for first in range(0, count, TASKS):
        await asyncio.gather(*(there_and_back(number) for number in range(first, min(first + TASKS, count))))
    sys.stdout.write(f"{peak_memory()}\n")


async def churn(url: str, directory: str, cache_bytes: int) -> None:
    moving = transfer(url, directory, cache_bytes)
    references = [found for line in sys.stdin if (found := Reference.parse(line.strip()))]
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(15, ended.set)
    verified = 0

    async def one_after_the_other() -> None:
        nonlocal verified
        while not ended.is_set():
            for number in random.sample(range(len(references)), len(references)):
                reference = references[number]
                if number < 4:
                    message = Message(attachments=[Document(id=str(reference))])
                    local = (await moving.localize(message)).model_dump(mode="json")["attachments"][0]["source"]
                    await asyncio.sleep(0.01)  # the interface does not open it at once
                    data = await asyncio.to_thread(Path(local).read_bytes)
                else:
                    data = await moving.fetch(reference)
                assert hashlib.sha256(data).hexdigest() == reference.digest
                verified += 1

    sys.stdout.write("running\n")
    sys.stdout.flush()
    await asyncio.gather(*(one_after_the_other() for _ in range(TASKS)))
    sys.stdout.write(f"{verified}\n")


async def stall(directory: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * BLOCK
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    await AttachmentCache(Path(directory), max_bytes=1).local_file(Reference("0" * 64, 2 * BLOCK), chunks())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["move", url, directory, count, size]:
            asyncio.run(move(url, directory, int(count), int(size)))
        case ["churn", url, directory, cache_bytes]:
            asyncio.run(churn(url, directory, int(cache_bytes)))
        case ["stall", directory]:
            asyncio.run(stall(directory))
