"""The attachment store without any server: URLs, local files, ages, and the map of obstore's errors."""

import os
import sys
import time
from pathlib import Path

import obstore
import obstore.exceptions
import pytest

from interfaces.attachment_errors import store_errors
from interfaces.attachment_store import AttachmentStore, _memory_of_this_process
from interfaces.errors import AttachmentMissing, AttachmentStoreUnavailable, Unavailable
from interfaces.references import GROUPS, Reference

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> AttachmentStore:
    return AttachmentStore(folder.as_uri(), max_bytes=1000, ttl=HOUR)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


async def sweep_all(store: AttachmentStore) -> int:
    return sum([await store.sweep() for _ in range(GROUPS // 16)])


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "file:///srv/a%20b",
        "s3://bucket",
        "s3://bucket/prefix/more",
        "gs://bucket",
        "az://container/prefix",
    ],
)
def test_urls_of_stores_are_taken(url: str) -> None:
    assert AttachmentStore(url, max_bytes=1, ttl=1).url == url


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("/srv/attachments", "must begin with memory:// or file://"),
        ("ftp://hunter2@host", "must begin with"),
        ("http://user:hunter2@host", "must begin with"),
        ("s3://key:hunter2@bucket", "credentials and options come from"),
        ("s3://hunter2@bucket", "credentials and options come from"),
        ("az://container/prefix?sig=hunter2", "credentials and options come from"),
        ("s3://bucket/prefix#hunter2", "credentials and options come from"),
        ("s3:///hunter2", "must name a bucket"),
        ("file://", "whole path"),
        ("file:///", "whole path"),
        ("file://hunter2/srv", "whole path"),
        ("s3://[hunter2", "cannot be read"),
    ],
)
def test_other_urls_are_refused_and_never_repeated(url: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as caught:
        AttachmentStore(url, max_bytes=1, ttl=1)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_all_memory_stores_of_a_process_are_one() -> None:
    stores = [AttachmentStore("memory://", max_bytes=100, ttl=HOUR) for _ in range(2)]
    reference = await stores[0].put(b"in memory")
    assert await stores[1].get(reference) == b"in memory"


async def test_in_memory_a_missing_one_is_told_to_be_perhaps_in_another_process() -> None:
    with pytest.raises(
        AttachmentMissing, match="memory:// keeps attachments inside one process only; set SWITCHBOARD_"
    ):
        await AttachmentStore("memory://", max_bytes=100, ttl=HOUR).get(Reference("0" * 64, 3))


async def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "with space" / "deeper"
    reference = await AttachmentStore(folder.as_uri(), max_bytes=100, ttl=HOUR).put(b"kept")
    assert (folder / reference.key).read_bytes() == b"kept"


async def test_what_is_no_regular_file_is_refused_without_waiting_for_it(
    store: AttachmentStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, text in [
        ("pipe", "name a regular file"),
        (".", "name a regular file"),
        ("none", "cannot be read: No suc"),
    ]:
        with pytest.raises(AttachmentMissing, match=text):
            await store.put(tmp_path / name)


async def test_a_put_renews_an_object_and_leaves_a_fresh_one_alone(store: AttachmentStore, folder: Path) -> None:
    reference = await store.put(b"a picture in every reply")
    kept = folder / reference.key
    age(kept, 60)
    written = kept.stat().st_mtime
    await store.put(b"a picture in every reply")
    assert kept.stat().st_mtime == written
    age(kept, HOUR)
    await store.put(b"a picture in every reply")
    assert kept.stat().st_mtime > time.time() - 60


async def test_an_object_lives_for_its_time_after_a_put_that_left_it_alone(
    store: AttachmentStore, folder: Path
) -> None:
    reference = await store.put(b"put again at nearly a tenth of its time")
    age(folder / reference.key, HOUR * 1.09)
    assert await sweep_all(store) == 0
    age(folder / reference.key, HOUR * 1.11)
    assert await sweep_all(store) == 1


async def test_one_that_is_renewed_after_it_was_listed_is_not_deleted(
    store: AttachmentStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = await store.put(b"old, and put again in this moment")
    age(folder / reference.key, HOUR * 2)
    was_expired = store._expire
    renewed = []

    async def renew_first(path: str) -> bool:
        renewed.append(
            await AttachmentStore(store.url, max_bytes=1000, ttl=HOUR).put(b"old, and put again in this moment")
        )
        return await was_expired(path)

    monkeypatch.setattr(store, "_expire", renew_first)
    assert await sweep_all(store) == 0
    assert renewed == [reference]
    assert await store.get(reference)


async def test_what_a_killed_upload_left_is_removed_after_an_hour(store: AttachmentStore, folder: Path) -> None:
    reference = await store.put(b"whole")
    left, writing = (folder / f"{reference.key}#{number}" for number in (1, 2))
    for path in (left, writing):
        path.write_bytes(b"whol")
    age(left, HOUR * 1.1)
    await sweep_all(store)
    assert not left.exists()
    assert writing.exists()
    assert await store.get(reference) == b"whole"


async def test_a_sweep_of_memory_that_was_never_used_does_not_even_import_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _memory_of_this_process.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore", None)  # importing it now would raise
    assert await AttachmentStore("memory://", max_bytes=1, ttl=1).sweep() == 0


def test_every_error_of_obstore_has_a_class_of_ours() -> None:
    kinds: list[type[Exception]] = [
        kind for kind in vars(obstore.exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert len(kinds) > 8
    kinds += [OSError, PermissionError, TimeoutError, NotImplementedError, ValueError]
    for kind in kinds:
        if issubclass(kind, Warning):
            continue
        with (
            pytest.raises(AttachmentStoreUnavailable, match="store s3://bucket: ") as caught,
            store_errors("s3://bucket"),
        ):
            raise kind("it happened")
        assert isinstance(caught.value, Unavailable)
        assert isinstance(caught.value.__cause__, kind)


def test_signed_addresses_and_the_debugger_stay_out_of_the_text() -> None:
    text = "error at https://host/container/key?sv=1&sig=hunter2 after 3 retries\n\nDebug source: hunter2"
    with pytest.raises(AttachmentStoreUnavailable) as caught, store_errors("az://container"):
        raise obstore.exceptions.GenericError(text)
    assert "hunter2" not in str(caught.value)
    assert "https://host/container/key?..." in str(caught.value)


async def test_a_directory_that_cannot_be_made_is_unavailable() -> None:
    with pytest.raises(AttachmentStoreUnavailable, match="attachment store file:///dev/null/store: "):
        await AttachmentStore("file:///dev/null/store", max_bytes=1, ttl=1).put(b"x")
