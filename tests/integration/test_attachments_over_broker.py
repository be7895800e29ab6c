"""Attachments from an edge process through the broker into a worker process and back: equal, bounded, and refused where
the store holds something else."""

import asyncio
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from interfaces import BrokerClient, Document, Message, Topology
from interfaces.attachment_store import AttachmentStore
from tests.bots.files import MARK, digest
from tests.integration.conftest import Report, StartWorker
from tests.services.processes import WorkerProcess

KINDS = ["Audio", "Video", "Animation", "Image", "Sticker", "Document", "VoiceMessage", "VideoMessage"]
MIB = 1024 * 1024
EACH = 25 * MIB // 2
MOST_RESIDENT = 150 * MIB


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("FILES", str(tmp_path))
    return {
        "attachments_url": (tmp_path / "store").as_uri(),
        "attachments_directory": str(tmp_path / "worker"),
    }


def make_file(directory: Path, name: str, size: int) -> tuple[Path, bytes]:
    data = random.Random(name).randbytes(size)
    path = directory / name
    path.write_bytes(data)
    return path, data


def most_resident(process: WorkerProcess) -> int:
    """The largest resident set the process ever had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.timeout(240)
async def test_200_mib_of_all_types_go_there_and_back_within_bounded_memory(
    start_worker: StartWorker,
    worker_settings: dict[str, str],
    processes: list[WorkerProcess],
    settings: dict[str, str],
    tmp_path: Path,
    topology: Topology,
    report: Report,
) -> None:
    expected: dict[str, tuple[list[str], str]] = {}
    polls: list[list[list[tuple[str, str]]]] = []
    for number, kinds in enumerate([[kind] for kind in 2 * KINDS] + [["Image", "Video", "Audio", "Document"]], start=1):
        size = EACH if len(kinds) == 1 else MIB
        made = [make_file(tmp_path, f"{number}-{place}", size) for place, _ in enumerate(kinds)]
        message = [(kind, str(path)) for kind, (path, _) in zip(kinds, made, strict=True)]
        if number % 2:
            polls.append([])
        polls[-1].append(message)
        expected[f"user-{number}"] = [digest(data) for _, data in made], digest(made[-1][1] + MARK)
    (tmp_path / "files.json").write_text(json.dumps(polls))

    worker = await start_worker("tests.bots.files:bot", **settings)
    await worker.ready()
    edge_settings = {**worker_settings, "SWITCHBOARD_ATTACHMENTS_URL": settings["attachments_url"]}
    arguments = ["-m", "worker.cli", "edge", "tests.bots.files:FileInterface", "--timeout", "60"]
    edge = await WorkerProcess.start(arguments, edge_settings)
    processes.append(edge)
    resident = 0
    ended = asyncio.create_task(edge.ended())
    while not ended.done():
        # A process that is ending has no memory any more.
        with suppress(FileNotFoundError, IndexError, ProcessLookupError):
            resident = max(resident, most_resident(edge))
        await asyncio.wait({ended}, timeout=0.05)
    assert await ended == 0, edge.log

    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    found = {answer["ctx_id"]: (answer["text"].split(), answer["got"][0]) for answer in answers}
    assert found == expected
    of_worker = most_resident(worker)
    report(f"200 MiB there and back: worker at most {of_worker / MIB:.0f} MiB, edge {resident / MIB:.0f} MiB resident")
    assert of_worker < MOST_RESIDENT
    assert 0 < resident < MOST_RESIDENT


Damage = Callable[[Path, bytes], None]


def truncate(path: Path, data: bytes) -> None:
    path.write_bytes(data[:-1])


def swap(path: Path, data: bytes) -> None:
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def leave(_: Path, __: bytes) -> None:
    """What is wrong is wrong from the beginning."""


def remove(path: Path, _: bytes) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("size", "damage", "told"),
    [
        (1000, truncate, r"AttachmentCorrupt: .* has 999 bytes in file://"),
        (1000, swap, r"AttachmentCorrupt: .* holds other bytes in file://"),
        (1000, remove, r"AttachmentMissing: .* has expired"),
        (3001, leave, r"AttachmentTooLarge: .* has 3001 bytes, and 3000 are allowed"),
        (3000, leave, "read 3000 bytes"),
    ],
    ids=["truncated", "swapped", "missing", "oversized", "as large as allowed"],
)
async def test_only_bytes_that_are_what_was_sent_reach_a_bot(
    size: int,
    damage: Damage,
    told: str,
    start_worker: StartWorker,
    settings: dict[str, str],
    tmp_path: Path,
    client: BrokerClient,
) -> None:
    path, data = make_file(tmp_path, "sent", size)
    store = AttachmentStore(settings["attachments_url"], max_bytes=10_000, ttl=3600)
    reference = await store.put(path)
    damage(tmp_path / "store" / reference.key, data)
    worker = await start_worker("tests.bots.files:careful", attachments_max_bytes=3000, **settings)
    await worker.ready()
    reply = await client.ask(Message(attachments=[Document(id=str(reference))]), "ada")
    assert reply.message is not None
    assert re.match(told, reply.message.text or ""), reply.message.text
