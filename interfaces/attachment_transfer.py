"""Takes attachments across the broker: local files into the store, references out of it, a bounded number of bytes at a
time.

On the way in a file becomes a reference; on the way out a reference becomes bytes, or a file an interface can send.
URLs and the ids of messengers stay as they are in messages; who asks for the bytes behind a URL gets them where the
rules allow it. It must never put a local path or bytes into a message that goes to the broker. Used by the edge and by
the worker's interface.
"""

import asyncio
import logging
import mimetypes
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from weakref import WeakValueDictionary

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import CHUNK_BYTES, MEMORY, PART_BYTES, AttachmentStore
from interfaces.attachment_walk import change_files
from interfaces.attachments import source_kind
from interfaces.byte_budget import ByteBudget
from interfaces.errors import AttachmentStoreNotShared, AttachmentStoreUnavailable, SwitchboardError
from interfaces.messages import Message
from interfaces.references import Reference
from interfaces.url_fetching import FetchRules, fetch_url

logger = logging.getLogger(__name__)

IN_FLIGHT_BYTES: Final = 32 * 1024 * 1024
"""What all transfers of a process hold in memory at a time; one larger attachment goes alone."""

UPLOAD_BYTES: Final = 3 * PART_BYTES
"""What the upload of a large file holds: a part on its way, the next one, and what is made into it."""

DOWNLOAD_BYTES: Final = 4 * CHUNK_BYTES

FETCHES_AT_A_TIME: Final = 8
"""Each may last for the whole time limit, with as many bytes on the disk as an attachment may have."""

UNKNOWN_TYPE: Final = "application/octet-stream"

SWEEP_SECONDS: Final = 600.0


class AttachmentTransfer:
    """Moves attachments between messages, `store` and `cache`.

    :param across_processes: whether messages leave this process, so that a store in its memory will not do.
    :param rules: which URLs may be fetched; none where not given.

    Methods raise `AttachmentError` for an attachment that cannot be moved, ever, and `AttachmentStoreUnavailable` where
    the store or the disk does not do its work now.
    """

    def __init__(
        self,
        store: AttachmentStore,
        cache: AttachmentCache,
        *,
        across_processes: bool,
        in_flight_bytes: int = IN_FLIGHT_BYTES,
        rules: FetchRules | None = None,
    ) -> None:
        self.store = store
        self.cache = cache
        self._across_processes = across_processes
        self._budget = ByteBudget(in_flight_bytes)
        self._rules = rules or FetchRules()
        self._urls = asyncio.Semaphore(FETCHES_AT_A_TIME)
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def keep(self, content: bytes | Path) -> Reference:
        """Put bytes, or those of a local file, into the store."""
        self._require_shared_store()
        size = (
            len(content) if isinstance(content, bytes) else min(await asyncio.to_thread(_size, content), UPLOAD_BYTES)
        )
        async with self._budget.taken(size):
            return await self.store.put(content)

    async def upload(self, message: Message) -> Message:
        """`message` as it may go to the broker: every local file is in the store, and its attachment a reference.

        Such an attachment also says its `size` in bytes, its `media_type` and its `filename`, where it did not before.
        """
        return await change_files(message, self._uploaded)

    async def fetch(self, reference: Reference) -> bytes:
        """The bytes behind a reference, verified. Several who ask for the same ones fetch them once."""
        async with self._lock(reference), self._budget.taken(reference.size):
            cached = await self._read_cached(reference)
            if cached is not None:
                return cached
            data = await self.store.get(reference)
            try:
                await self.cache.add(reference, data)
            except AttachmentStoreUnavailable as error:
                logger.warning("attachment not cached: %s", error)
            return data

    async def fetch_url(self, url: str) -> bytes:
        """The bytes behind a URL. Raises `AttachmentUrlRefused` where nothing may be fetched from there, and as
        `url_fetching.fetch_url`."""
        async with self._urls:
            # Through the disk: how much of the budget it needs is known at the end, and it may be long in coming.
            with self.cache.scratch() as file:
                size = await fetch_url(url, self._rules, file, max_bytes=self.store.max_bytes)
                async with self._budget.taken(size):
                    return await asyncio.to_thread(_read_from_start, file)

    async def localize(self, message: Message) -> Message:
        """`message` as an interface can send it: every reference is a local file, which stays for five minutes at least
        (`attachment_cache.WANTED_SECONDS`)."""
        return await change_files(message, self._localized)

    async def sweep_regularly(self, every: float = SWEEP_SECONDS) -> None:
        """Delete what has expired and what is too much, about every `every` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every * random.uniform(0.5, 1.5))  # noqa: S311 - workers started together drift apart
            try:
                deleted = await self.store.sweep()
                await self.cache.trim()
            except SwitchboardError as error:
                logger.warning("attachments not swept: %s", error)
            else:
                logger.debug("%d expired attachments deleted", deleted)

    async def _uploaded(self, file: Mapping[str, Any]) -> dict[str, Any]:
        source = file.get("source")
        if not source or source_kind(source) != "path":
            return {}
        path = Path(source)
        reference = await self.keep(path)
        name = file.get("filename") or path.name
        return {
            "source": None,
            "id": str(reference),
            "size": reference.size,
            "media_type": file.get("media_type") or mimetypes.guess_type(str(name))[0] or UNKNOWN_TYPE,
            "filename": name,
            "cached_filename": None,
        }

    async def _localized(self, file: Mapping[str, Any]) -> dict[str, Any]:
        identity = file.get("id")
        reference = Reference.parse(identity) if isinstance(identity, str) else None
        if reference is None:
            return {}
        async with self._lock(reference), self._budget.taken(min(reference.size, DOWNLOAD_BYTES)):
            path = await self.cache.local_file(reference, self.store.chunks(reference))
        return {"source": path, "id": None}

    async def _read_cached(self, reference: Reference) -> bytes | None:
        try:
            return await self.cache.read(reference)
        except AttachmentStoreUnavailable as error:
            logger.warning("attachment not read from the cache: %s", error)
            return None

    def _lock(self, reference: Reference) -> asyncio.Lock:
        return self._fetching.setdefault(reference.digest, asyncio.Lock())

    def _require_shared_store(self) -> None:
        if self._across_processes and self.store.is_memory:
            raise AttachmentStoreNotShared(
                f"an attachment kept in {MEMORY}:// could be read by no other process: set SWITCHBOARD_ATTACHMENTS_URL "
                "to a store that every edge and worker reaches, for example file:///srv/attachments or s3://bucket"
            )


def _read_from_start(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # Reading it will say what is wrong with it.
