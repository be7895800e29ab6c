"""Attachments across the broker: files become references, references become files and bytes, the rest stays."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.data_model import DataModel
from interfaces.errors import (
    AttachmentMissing,
    AttachmentReferenceInvalid,
    AttachmentStoreNotShared,
    AttachmentStoreUnavailable,
    AttachmentTooLarge,
)
from interfaces.messages import Audio, DataAttachment, Document, Image, Location, MediaGroup, Message, Sticker, Video
from interfaces.references import Reference
from interfaces.unsafe import refuse_unsafe
from worker.attachments import open_transfer
from worker.settings import load_settings

MAX_BYTES = 1000


@pytest.fixture
def store(tmp_path: Path) -> AttachmentStore:
    return AttachmentStore((tmp_path / "store").as_uri(), max_bytes=MAX_BYTES, ttl=3600)


@pytest.fixture
def transfer(store: AttachmentStore, tmp_path: Path) -> AttachmentTransfer:
    return AttachmentTransfer(store, AttachmentCache(tmp_path / "cache", max_bytes=10_000), across_processes=True)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(b"of a cat")
    return path


def remove(directory: Path) -> None:
    directory.rmdir()


def first(message: Message) -> Any:
    assert message.attachments
    return message.attachments[0]


async def test_a_local_file_goes_as_a_reference_and_arrives_as_a_file(
    transfer: AttachmentTransfer, picture: Path
) -> None:
    message = Message("look", attachments=[Image(source=picture, caption="a cat")])
    before = message.model_dump_json()
    sent = await transfer.upload(message)
    assert message.model_dump_json() == before
    reference = Reference.parse(first(sent).id)
    assert reference is not None
    assert json.loads(sent.model_dump_json())["attachments"] == [
        {
            "chatsky_attachment_type": "image",
            "use_cache": True,
            "id": str(reference),
            "caption": "a cat",
            "size": 8,
            "media_type": "image/png",
            "filename": "picture.png",
        }
    ]
    refuse_unsafe(json.loads(sent.model_dump_json()))
    received = await transfer.localize(Message.model_validate_json(sent.model_dump_json()))
    assert isinstance(first(received), Image)
    assert first(received).id is None
    assert first(received).source.read_bytes() == b"of a cat"
    assert first(received).caption == "a cat"
    assert await transfer.fetch(reference) == b"of a cat"


async def test_a_name_and_a_type_that_are_set_stay(transfer: AttachmentTransfer, picture: Path) -> None:
    files = [
        Document(source=picture, filename="report.pdf"),
        Document(source=picture, media_type="image/apng"),
        Document(source=picture, filename="no suffix"),
    ]
    sent = await transfer.upload(Message(attachments=files))
    assert sent.attachments is not None
    named = [(getattr(file, "filename", None), getattr(file, "media_type", None)) for file in sent.attachments]
    assert named == [
        ("report.pdf", "application/pdf"),
        ("picture.png", "image/apng"),
        ("no suffix", "application/octet-stream"),
    ]


async def test_urls_foreign_ids_references_and_what_is_no_file_stay_the_very_same(transfer: AttachmentTransfer) -> None:
    attachments = [
        Image(source="https://example.com/a.png"),
        Sticker(id="CAACAgIAAxkB"),
        Document(id=f"attachment:sha256:{'0' * 64}:3"),
        Location(longitude=1, latitude=2),
        DataModel(chatsky_attachment_type="hologram", source="/etc/hostname"),
    ]
    message = Message(attachments=attachments)
    assert await transfer.upload(message) is message
    empty = Message("no attachments")
    assert await transfer.upload(empty) is empty
    without = Message(attachments=[attachments[0], attachments[1], attachments[3]])
    assert await transfer.localize(without) is without


async def test_files_in_groups_and_in_undeclared_fields_are_found_both_ways(
    transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    plain = {"chatsky_attachment_type": "image", "source": str(paths[3])}
    message = Message(
        attachments=[
            MediaGroup(group=[Image(source=paths[0]), DataAttachment(source=paths[1], chatsky_attachment_type="x")]),
            Audio(id="a messenger's", thumbnail=Image(source=paths[2])),
            Video(source=paths[4], thumbnails=[{"small": plain}]),
        ]
    )
    sent = await transfer.upload(message)
    text = sent.model_dump_json()
    assert text.count("attachment:sha256:") == 5
    assert str(tmp_path) not in text
    assert str(paths[3]) == plain["source"]
    received = await transfer.localize(Message.model_validate_json(text))
    assert received.attachments is not None
    group, audio, video = (attachment.model_dump() for attachment in received.attachments)
    small = video["thumbnails"][0]["small"]
    found = [*group["group"], audio["thumbnail"], small, video]
    assert [file["source"].read_bytes() for file in found] == [bytes([number]) for number in range(5)]
    assert audio["id"] == "a messenger's"
    assert Image.model_validate(small).id is None


async def test_a_structure_that_holds_itself_does_not_end_in_recursion(transfer: AttachmentTransfer) -> None:
    knot: dict[str, Any] = {}
    knot["again"] = knot
    message = Message(attachments=[Image(id="1", markup=knot)])
    assert await transfer.upload(message) is message


async def test_a_file_too_large_or_missing_is_an_error_that_names_it(
    transfer: AttachmentTransfer, tmp_path: Path
) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(AttachmentTooLarge, match=f"{large} has 1001 bytes, and 1000 are allowed"):
        await transfer.upload(Message(attachments=[Document(source=large)]))
    with pytest.raises(AttachmentMissing, match=f"{tmp_path}/gone cannot be read: No such file"):
        await transfer.upload(Message(attachments=[Document(source=tmp_path / "gone")]))


async def test_a_reference_that_is_none_or_leads_nowhere_is_an_error(transfer: AttachmentTransfer) -> None:
    with pytest.raises(AttachmentReferenceInvalid):
        await transfer.localize(Message(attachments=[Document(id="attachment:sha256:1")]))
    with pytest.raises(AttachmentMissing):
        await transfer.localize(Message(attachments=[Document(id=f"attachment:sha256:{'0' * 64}:3")]))
    with pytest.raises(AttachmentTooLarge):
        await transfer.fetch(Reference("0" * 64, MAX_BYTES + 1))
    assert list(transfer.cache.directory.iterdir()) == []


async def test_the_memory_of_one_process_is_refused_where_others_are_to_read_it(tmp_path: Path, picture: Path) -> None:
    cache = AttachmentCache(tmp_path / "cache", max_bytes=1)
    memory = AttachmentStore("memory://", max_bytes=MAX_BYTES, ttl=3600)
    message = Message(attachments=[Document(source=picture)])
    apart = AttachmentTransfer(memory, cache, across_processes=True)
    for failing in (apart.upload(message), apart.keep(b"bytes")):
        with pytest.raises(
            AttachmentStoreNotShared, match="set SWITCHBOARD_ATTACHMENTS_URL to a store that every edge"
        ):
            await failing
    without = Message(attachments=[Document(id="1")])
    assert await apart.upload(without) is without
    together = AttachmentTransfer(memory, cache, across_processes=False)
    assert (await together.localize(await together.upload(message))).attachments


async def test_several_readers_of_the_same_bytes_fetch_them_once(
    transfer: AttachmentTransfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = await transfer.keep(b"popular")
    get, gets = transfer.store.get, []

    async def counted(reference: Reference) -> bytes:
        gets.append(reference)
        return await get(reference)

    monkeypatch.setattr(transfer.store, "get", counted)
    assert await asyncio.gather(*(transfer.fetch(reference) for _ in range(10))) == [b"popular"] * 10
    assert gets == [reference]
    assert len(transfer._fetching) == 0


async def test_a_cache_that_fails_costs_nothing_but_its_help(
    transfer: AttachmentTransfer, caplog: pytest.LogCaptureFixture
) -> None:
    reference = await transfer.keep(b"bytes")
    remove(transfer.cache.directory)
    assert await transfer.fetch(reference) == b"bytes"
    assert "attachment not cached: attachments directory" in caplog.text
    with pytest.raises(AttachmentStoreUnavailable):
        await transfer.localize(Message(attachments=[Document(id=str(reference))]))


async def test_sweeping_goes_on_after_a_failure_until_cancelled(
    transfer: AttachmentTransfer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls, swept_again = 0, asyncio.Event()

    async def fail_first() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise AttachmentStoreUnavailable("not now")
        swept_again.set()
        return 0

    monkeypatch.setattr(transfer.store, "sweep", fail_first)
    sweeping = asyncio.create_task(transfer.sweep_regularly(every=0.001))
    async with asyncio.timeout(10):
        await swept_again.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    assert "attachments not swept: not now" in caplog.text


def test_the_settings_describe_a_transfer(tmp_path: Path) -> None:
    settings = load_settings(
        attachments_url="s3://bucket/p", attachments_directory=str(tmp_path / "c"), attachments_max_bytes="5"
    )
    transfer = open_transfer(settings)
    assert (transfer.store.url, transfer.store.max_bytes) == ("s3://bucket/p", 5)
    assert transfer.store.ttl == settings.attachments_ttl
    assert transfer.cache.directory == tmp_path / "c"
    assert transfer.cache.max_bytes == settings.attachments_cache_bytes
