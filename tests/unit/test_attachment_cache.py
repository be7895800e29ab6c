"""The attachment cache: bounded, whole or not at all, and only in its own directory."""

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interfaces import attachment_cache
from interfaces.attachment_cache import WANTED_SECONDS, AttachmentCache
from interfaces.attachments import Document
from interfaces.errors import AttachmentCorrupt, AttachmentStoreUnavailable, SettingsInvalid
from interfaces.local_files import PARTIAL
from interfaces.messengers import MessengerInterfaceWithAttachments, PipelineRunnerFunction
from interfaces.references import Reference


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> AttachmentCache:
    return AttachmentCache(directory, max_bytes=1000)


def sized(size: int, letter: str = "a") -> tuple[Reference, bytes]:
    data = letter.encode() * size
    return Reference(hashlib.sha256(data).hexdigest(), size), data


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def not_asked() -> AsyncIterator[bytes]:
    yield pytest.fail("the bytes are here already")


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def remove(directory: Path) -> None:
    directory.rmdir()


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_what_was_added_is_read_again_and_nobody_else_may_look(cache: AttachmentCache, directory: Path) -> None:
    reference, data = sized(10)
    assert await cache.read(reference) is None
    await cache.add(reference, data)
    assert await cache.read(reference) == data
    assert names(directory) == {reference.digest}
    assert permissions(directory) == 0o700
    assert permissions(directory / reference.digest) == 0o600


async def test_the_least_recently_used_goes_first(cache: AttachmentCache, directory: Path) -> None:
    kept = [sized(400, letter) for letter in "ab"]
    for number, (reference, data) in enumerate(kept):
        await cache.add(reference, data)
        age(directory / reference.digest, 100 - number)
    assert await cache.read(kept[0][0])  # which makes the other one the oldest
    await cache.add(*sized(400, "c"))
    assert names(directory) == {kept[0][0].digest, sized(400, "c")[0].digest}


async def test_one_larger_than_the_cache_does_not_empty_it(cache: AttachmentCache, directory: Path) -> None:
    await cache.add(*sized(10))
    await cache.add(*sized(1001))
    assert names(directory) == {sized(10)[0].digest}


async def test_the_number_of_files_is_bounded_too(cache: AttachmentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment_cache, "MAX_FILES", 3)
    for letter in "abcdef":
        await cache.add(*sized(1, letter))
    assert len(names(cache.directory)) == 3


async def test_a_file_of_another_size_is_not_read_and_is_replaced(cache: AttachmentCache, directory: Path) -> None:
    reference, data = sized(10)
    (directory / reference.digest).write_bytes(data[:9])
    assert await cache.read(reference) is None
    path = await cache.local_file(reference, pieces(data))
    assert path.read_bytes() == data
    await cache.add(reference, data)
    assert await cache.read(reference) == data


async def test_files_of_get_bytes_count_and_go_and_others_do_neither(cache: AttachmentCache, directory: Path) -> None:
    chatskys = directory / str(uuid.uuid5(uuid.NAMESPACE_URL, "https://example.com/a"))
    others = {"notes.txt", str(uuid.uuid4()), "0" * 63}
    for name in others:
        (directory / name).write_bytes(b"x" * 2000)
    chatskys.write_bytes(b"x" * 900)
    age(chatskys, 10)
    await cache.add(*sized(50))
    assert chatskys.exists()
    await cache.add(*sized(60, "b"))
    assert names(directory) == {*others, sized(50)[0].digest, sized(60, "b")[0].digest}


async def test_a_file_given_to_an_interface_stays_whatever_else_is_added(cache: AttachmentCache) -> None:
    reference, data = sized(600)
    path = await cache.local_file(reference, pieces(data[:300], data[300:]))
    for letter in "bcdef":
        await cache.add(*sized(900, letter))
    assert path.read_bytes() == data
    assert int(path.name.partition(".")[2]) >= time.time() + WANTED_SECONDS
    assert await cache.local_file(reference, not_asked()) == path


async def test_it_goes_when_its_time_is_over(cache: AttachmentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, data = sized(600)
    path = await cache.local_file(reference, pieces(data))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * WANTED_SECONDS + 1)
    await cache.trim()
    assert not path.exists()
    assert await cache.read(reference) == data  # for other readers, as long as there is room
    await cache.add(*sized(900, "b"))
    assert await cache.read(reference) is None


async def test_a_file_with_two_names_takes_its_place_once(cache: AttachmentCache, directory: Path) -> None:
    reference, data = sized(600)
    await cache.add(reference, data)
    path = await cache.local_file(reference, not_asked())
    await cache.add(*sized(400, "b"))
    assert names(directory) == {reference.digest, path.name, sized(400, "b")[0].digest}


async def test_without_hard_links_it_works_and_only_keeps_less(
    cache: AttachmentCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    reference, data = sized(600)
    await cache.add(reference, data)
    path = await cache.local_file(reference, pieces(data))
    assert path.read_bytes() == data


async def test_nothing_is_left_of_bytes_that_turn_out_wrong(cache: AttachmentCache, directory: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begins well"
        raise AttachmentCorrupt("and does not end so")

    with pytest.raises(AttachmentCorrupt):
        await cache.local_file(sized(20)[0], broken())
    assert names(directory) == set()


async def test_nothing_is_left_of_a_cancelled_one(cache: AttachmentCache, directory: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"begins"
        begun.set()
        await asyncio.Event().wait()

    filling = asyncio.create_task(cache.local_file(sized(20)[0], endless()))
    await begun.wait()
    assert any(name.startswith(PARTIAL) for name in names(directory))
    filling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await filling
    assert names(directory) == set()


async def test_what_killed_processes_left_goes_after_an_hour_and_counts_until_then(
    cache: AttachmentCache, directory: Path
) -> None:
    left = directory / f"{PARTIAL}0123"
    left.write_bytes(b"x" * 900)
    await cache.add(*sized(200))
    assert names(directory) == {left.name}  # no room beside it
    age(left, 3700)
    await cache.add(*sized(200))
    assert names(directory) == {sized(200)[0].digest}


async def test_no_link_is_followed_out_of_the_directory(
    cache: AttachmentCache, directory: Path, tmp_path: Path
) -> None:
    reference, data = sized(10)
    outside = tmp_path / "outside"
    outside.write_bytes(data)
    (directory / reference.digest).symlink_to(outside)
    assert await cache.read(reference) is None
    path = await cache.local_file(reference, pieces(data))
    assert not path.is_symlink()
    await cache.add(reference, data)
    await cache.add(*sized(1000, "b"))
    assert outside.read_bytes() == data
    (directory / sized(5)[0].digest).symlink_to(outside)
    await cache.add(*sized(999, "c"))
    assert outside.exists()


def test_a_directory_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsInvalid, match=r"cannot be trusted; chmod o-w, .*SWITCHBOARD_ATTACHMENTS_DIRECTORY"):
        AttachmentCache(tmp_path, max_bytes=1)


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"/dev/null/cache: Not a directory; name another in SWITCHBOARD_"):
        AttachmentCache(Path("/dev/null/cache"), max_bytes=1)


async def test_a_disk_that_fails_is_unavailable(cache: AttachmentCache, directory: Path) -> None:
    remove(directory)
    with pytest.raises(
        AttachmentStoreUnavailable, match=r"No such file or directory; make room there, or name another"
    ):
        await cache.add(*sized(1))


class Ours(MessengerInterfaceWithAttachments):
    async def connect(self, pipeline_runner: PipelineRunnerFunction) -> None:
        raise NotImplementedError

    async def get_attachment_bytes(self, source: str) -> bytes:
        return source.encode()


async def test_the_names_get_bytes_gives_are_the_ones_known_here(cache: AttachmentCache, directory: Path) -> None:
    interface = Ours(directory)
    attachment = Document(id="a file id")
    assert await attachment.get_bytes(interface) == b"a file id"
    (cached,) = names(directory)
    await cache.add(*sized(1000))
    assert cached not in names(directory)
