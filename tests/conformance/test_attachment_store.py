"""The attachment store on each kind of place: files, S3 (moto on loopback), this process' memory."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import obstore
import pytest

from interfaces.attachment_store import PART_BYTES, AttachmentStore
from interfaces.errors import (
    AttachmentCorrupt,
    AttachmentMissing,
    AttachmentStoreUnavailable,
    AttachmentTooLarge,
)
from interfaces.references import Reference
from tests.services.s3 import BUCKET, s3_on_loopback

MAX_BYTES = 16 * 1024 * 1024
LARGE = PART_BYTES + 12345
NEVER = Reference(hashlib.sha256(b"never put").hexdigest(), 9)

OpenAttachmentStore = Callable[..., AttachmentStore]


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[Mapping[str, str]]:
    with s3_on_loopback() as environment:
        yield environment


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "file":
        return (tmp_path / "a b" / "store").as_uri()
    for name, value in request.getfixturevalue("s3_environment").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
async def open_attachments(url: str) -> AsyncIterator[OpenAttachmentStore]:
    def open_attachments(max_bytes: int = MAX_BYTES, ttl: float = 3600) -> AttachmentStore:
        return AttachmentStore(url, max_bytes=max_bytes, ttl=ttl)

    yield open_attachments
    if url.startswith("memory:"):  # The others' are of one test alone, and go with its directory or the server.
        everything = open_attachments(ttl=-1)
        for _ in range(16):
            await everything.sweep()


@pytest.fixture
def store(open_attachments: OpenAttachmentStore) -> AttachmentStore:
    return open_attachments()


async def replace(store: AttachmentStore, reference: Reference, data: bytes) -> None:
    """What somebody else does to the store behind our back."""
    await obstore.put_async(store._store, reference.key, data)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, LARGE])
async def test_bytes_and_files_come_back_under_one_reference(store: AttachmentStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    reference = await store.put(data)
    assert reference == Reference(hashlib.sha256(data).hexdigest(), size)
    assert await store.put(path) == reference
    assert await store.get(reference) == data


async def test_a_large_file_comes_back_when_only_the_file_was_put(store: AttachmentStore, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    reference = await store.put(path)
    pieces = [chunk async for chunk in store.chunks(reference)]
    assert b"".join(pieces) == data


async def test_another_store_object_of_the_same_url_reads_it(open_attachments: OpenAttachmentStore) -> None:
    reference = await open_attachments().put(b"shared")
    assert await open_attachments().get(reference) == b"shared"


async def test_what_is_too_large_is_refused_with_the_name_of_the_setting(
    open_attachments: OpenAttachmentStore, tmp_path: Path
) -> None:
    store = open_attachments(max_bytes=10)
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # which reading as a whole would not survive
    for content in (b"x" * 11, path):
        with pytest.raises(AttachmentTooLarge, match=r"10 are allowed: .*SWITCHBOARD_ATTACHMENTS_MAX_BYTES"):
            await store.put(content)
    assert (await store.put(b"x" * 10)).size == 10
    reference = await open_attachments().put(b"x" * 11)
    with pytest.raises(AttachmentTooLarge):
        await store.get(reference)


async def test_what_was_truncated_is_refused(store: AttachmentStore) -> None:
    reference = await store.put(b"the whole of it")
    await replace(store, reference, b"the whole")
    with pytest.raises(AttachmentCorrupt, match=f"{reference.digest}.* has 9 bytes in {store.url}: it was truncated"):
        await store.get(reference)


async def test_what_was_swapped_is_refused_and_never_given_as_a_whole(store: AttachmentStore) -> None:
    reference = await store.put(b"the right bytes")
    await replace(store, reference, b"the wrong bytes")
    with pytest.raises(AttachmentCorrupt, match="holds other bytes"):
        await store.get(reference)


async def test_what_was_truncated_is_mended_by_the_next_put(store: AttachmentStore) -> None:
    reference = await store.put(b"the whole of it")
    await replace(store, reference, b"the whole")
    assert await store.put(b"the whole of it") == reference
    assert await store.get(reference) == b"the whole of it"


async def test_what_was_never_put_is_missing_and_the_text_says_where(store: AttachmentStore) -> None:
    with pytest.raises(AttachmentMissing, match="SWITCHBOARD_ATTACHMENTS_URL") as caught:
        await store.get(NEVER)
    assert store.url in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_what_has_expired_is_deleted_and_nothing_else(open_attachments: OpenAttachmentStore) -> None:
    store, short = open_attachments(), open_attachments(ttl=0.01)
    references = [await store.put(os.urandom(8)) for _ in range(20)]
    foreign = "sha256/00/notes.txt"
    await obstore.put_async(store._store, foreign, b"not ours")
    assert sum([await store.sweep() for _ in range(16)]) == 0
    deleted = 0
    async with asyncio.timeout(60):
        while deleted < len(references):
            deleted += await short.sweep()
    for reference in references:
        with pytest.raises(AttachmentMissing):
            await store.get(reference)
    assert (await obstore.head_async(store._store, foreign))["size"] == 8
    await obstore.delete_async(store._store, foreign)


async def test_two_sweeps_at_a_time_do_no_harm(open_attachments: OpenAttachmentStore) -> None:
    stores = [open_attachments(ttl=0.01) for _ in range(2)]
    for store in stores:
        store._group = 0
    references = [await stores[0].put(os.urandom(8)) for _ in range(50)]
    deleted = 0
    async with asyncio.timeout(60):
        while deleted < len(references):
            deleted += sum(await asyncio.gather(*(store.sweep() for store in stores)))


async def test_a_file_that_changes_while_it_is_uploaded_is_not_kept(
    store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing"
    path.write_bytes(os.urandom(LARGE))
    was_fresh = store._is_fresh

    async def change(reference: Reference) -> bool:
        path.write_bytes(os.urandom(LARGE))
        return await was_fresh(reference)

    monkeypatch.setattr(store, "_is_fresh", change)
    with pytest.raises(AttachmentCorrupt, match="changed while it was read: send it once it is complete"):
        await store.put(path)
    assert [
        found async for page in obstore.list(store._store, "sha256") for found in page if found["size"] == LARGE
    ] == []


async def test_an_s3_that_cannot_be_used_is_unavailable_with_a_hint(
    s3_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    absent = AttachmentStore("s3://no-such-bucket/p", max_bytes=100, ttl=100)
    for failing in (absent.put(b"x"), absent.get(NEVER)):
        with pytest.raises(AttachmentStoreUnavailable, match=r"s3://no-such-bucket/p: .*; create the bucket"):
            await failing
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(AttachmentStoreUnavailable, match="set AWS_ALLOW_HTTP=true"):
        await AttachmentStore(f"s3://{BUCKET}", max_bytes=100, ttl=100).put(b"x")
