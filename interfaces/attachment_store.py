"""Where the bytes of attachments are between the processes: files, S3, GCS, Azure or this process, chosen by a URL.

Objects are named by their SHA-256, so the same bytes are kept once, putting them is repeatable, and what comes back is
verified. It must never give bytes that do not match their reference, and never hold a large file in memory as a whole.
obstore, which does the work, is imported with the first attachment. Used by the attachment transfer.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urlsplit

from interfaces.attachment_errors import store_errors
from interfaces.errors import AttachmentCorrupt, AttachmentTooLarge
from interfaces.local_files import hash_file, open_file, remove_older
from interfaces.references import GROUPS, KEY_SHAPE, Reference, group_prefix

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

MEMORY: Final = "memory"
SCHEMES: Final = (MEMORY, "file", "s3", "gs", "az")

CHUNK_BYTES: Final = 1024 * 1024
"""What is read and hashed at a time."""

PART_BYTES: Final = 5 * 1024 * 1024
"""What is uploaded at a time: the smallest part S3 takes. A file up to this size is one request."""

FRESH_SHARE: Final = 0.1
"""A put leaves an object alone that is younger than this share of the lifetime, so that a picture a bot sends in every
reply is uploaded once. Objects live that much longer than the lifetime: it counts from the last put, whatever that did.
"""

GROUPS_PER_SWEEP: Final = 16
DELETIONS_PER_SWEEP: Final = 10_000
PAGE: Final = 50
"""Objects that are looked at, and at most deleted, at a time."""

PARTIAL_SECONDS: Final = 3600.0
"""After which a half-written file is what a killed process left."""

_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
"""For a lost packet, not for an outage: that is waited out by whoever knows what waits with it."""


def check_url(url: str) -> None:
    """Raise `ValueError` where `url` cannot name a store. The text never repeats the URL: a password may stand in it
    that belongs elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL cannot be read") from None
    if parts.scheme not in SCHEMES:
        raise ValueError("the URL must begin with " + " or ".join(f"{scheme}://" for scheme in SCHEMES))
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "the URL must be scheme://place/path and no more: credentials and options come from the store's own "
            "environment variables (AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY, ...)"
        )
    if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("a file URL must name a directory by its whole path: file:///var/lib/attachments")
    if parts.scheme not in (MEMORY, "file") and not parts.netloc:
        raise ValueError(f"the URL must name a bucket or container: {parts.scheme}://name/prefix")


class AttachmentStore:
    """The store at `url`. All that name `memory://` are one, as long as the process lives.

    Whoever keeps or reads more than `max_bytes` at a time is refused. What nobody has put again for `ttl` seconds goes.
    Each method raises `AttachmentStoreUnavailable` where the store does not answer or refuses.
    """

    def __init__(self, url: str, *, max_bytes: int, ttl: float) -> None:
        check_url(url)
        self.url = url
        self.max_bytes = max_bytes
        self.ttl = ttl
        self._group = random.randrange(GROUPS)  # noqa: S311 - so that of several workers each begins elsewhere

    @property
    def is_memory(self) -> bool:
        """Whether nobody outside this process can read what is put here."""
        return urlsplit(self.url).scheme == MEMORY

    async def put(self, content: bytes | Path) -> Reference:
        """Keep bytes, or those of a local file, and return the reference to them. Repeatable; it renews their lifetime.

        Raises `AttachmentTooLarge` before anything is read, `AttachmentMissing` for a file that cannot be read, and
        `AttachmentCorrupt` for one that changes meanwhile.
        """
        if isinstance(content, bytes):
            return await self._put_bytes(content, "an attachment")
        with await asyncio.to_thread(open_file, content) as file:
            size = file.seek(0, 2)
            self._refuse_large(size, str(content))
            file.seek(0)
            if size <= PART_BYTES:
                # One that grows now is cut off here: what it was when it was opened is a file as good as any.
                return await self._put_bytes(await asyncio.to_thread(file.read, size), str(content))
            digest = await asyncio.to_thread(hash_file, file, size)
            reference = Reference(digest, size)
            await self._keep(reference, partial(_verified_parts, file, reference, content))
            return reference

    async def chunks(self, reference: Reference) -> AsyncIterator[bytes]:
        """The bytes in pieces, which are only known to be the right ones once the last was given and nothing raised.

        Raises `AttachmentTooLarge` before asking the store, `AttachmentMissing`, and `AttachmentCorrupt`.
        """
        self._refuse_large(reference.size, f"attachment {reference}")
        import obstore

        with store_errors(self.url, reference):
            found = await obstore.get_async(self._store, reference.key)
            size = found.meta["size"]
            if size != reference.size:
                raise AttachmentCorrupt(f"attachment {reference} has {size} bytes in {self.url}: {_MEND_CORRUPT}")
            read, hashed = 0, hashlib.sha256()
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                read += len(chunk)
                hashed.update(chunk)
                yield chunk
        if read != reference.size or hashed.hexdigest() != reference.digest:
            raise AttachmentCorrupt(f"attachment {reference} holds other bytes in {self.url}: {_MEND_CORRUPT}")

    async def get(self, reference: Reference) -> bytes:
        """The bytes as a whole, verified. Raises as `chunks` does."""
        data = BytesIO()
        async for chunk in self.chunks(reference):
            data.write(chunk)
        return data.getvalue()

    async def sweep(self) -> int:
        """Delete what has expired among the next sixteenth of all keys; how many objects that were.

        One call is bounded, and calls from any number of processes at once do no harm. Objects of other shapes of name
        are not touched.
        """
        if self.is_memory and not _memory_of_this_process.cache_info().currsize:
            return 0  # Where no attachment is ever moved, its library is not imported.
        import obstore

        deleted = 0
        with store_errors(self.url):
            for _ in range(GROUPS_PER_SWEEP):
                async for page in obstore.list(self._store, group_prefix(self._group), chunk_size=PAGE):
                    stale = [
                        found["path"] for found in page if KEY_SHAPE.fullmatch(found["path"]) and self._is_stale(found)
                    ]
                    deleted += sum(await asyncio.gather(*map(self._expire, stale)))
                    if deleted >= DELETIONS_PER_SWEEP:
                        return deleted  # The next call begins with the same group, of which less is left.
                await self._remove_partial()
                self._group = (self._group + 1) % GROUPS
        return deleted

    @cached_property
    def _store(self) -> "ObjectStore":
        from obstore.store import from_url

        if self.is_memory:
            return _memory_of_this_process()
        if urlsplit(self.url).scheme == "file":
            return from_url(self.url, mkdir=True)
        # No client options: they would replace those of the environment (AWS_ALLOW_HTTP).
        return from_url(self.url, retry_config=_RETRIES)

    def _refuse_large(self, size: int, what: str) -> None:
        if size > self.max_bytes:
            raise AttachmentTooLarge(
                f"{what} has {size} bytes, and {self.max_bytes} are allowed: send a smaller one, or raise "
                "SWITCHBOARD_ATTACHMENTS_MAX_BYTES on every edge and worker"
            )

    async def _put_bytes(self, data: bytes, what: str) -> Reference:
        self._refuse_large(len(data), what)
        reference = Reference((await asyncio.to_thread(hashlib.sha256, data)).hexdigest(), len(data))
        await self._keep(reference, lambda: data)
        return reference

    async def _keep(self, reference: Reference, content: Callable[[], bytes | Iterator[bytes]]) -> None:
        import obstore

        with store_errors(self.url):
            if not await self._is_fresh(reference):
                # One part at a time: obstore's default is twelve, each of them in memory.
                await obstore.put_async(self._store, reference.key, content(), chunk_size=PART_BYTES, max_concurrency=1)

    async def _is_fresh(self, reference: Reference) -> bool:
        import obstore

        try:
            found = await obstore.head_async(self._store, reference.key)
        except FileNotFoundError:
            return False
        return found["size"] == reference.size and _age(found) < self.ttl * FRESH_SHARE

    def _is_stale(self, found: "ObjectMeta") -> bool:
        return _age(found) > self.ttl * (1 + FRESH_SHARE)

    async def _expire(self, path: str) -> bool:
        import obstore

        try:
            # Once more: a put may have renewed it since it was listed. One that does so between these two calls, for
            # bytes nobody put for the whole lifetime, loses: its reader gets `AttachmentMissing`, the next put mends.
            if not self._is_stale(await obstore.head_async(self._store, path)):
                return False
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return False  # Somebody else sweeps too.
        return True

    async def _remove_partial(self) -> None:
        """obstore writes a file beside its final name with `#` and a number, and does not list what a kill leaves."""
        from obstore.store import LocalStore

        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            folder = self._store.prefix / group_prefix(self._group)
            await asyncio.to_thread(remove_older, folder, "*#*", PARTIAL_SECONDS)


_MEND_CORRUPT: Final = "it was truncated or changed there. Delete it; whoever has the original may send it again"


@cache
def _memory_of_this_process() -> "ObjectStore":
    from obstore.store import MemoryStore

    return MemoryStore()


def _age(found: "ObjectMeta") -> float:
    return (datetime.now(UTC) - found["last_modified"]).total_seconds()


def _verified_parts(file: BinaryIO, reference: Reference, path: Path) -> Iterator[bytes]:
    """The file from its beginning; obstore takes one part after the other, and drops all where this raises."""
    file.seek(0)
    hashed, left = hashlib.sha256(), reference.size
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        hashed.update(chunk)
        yield chunk
    if hashed.hexdigest() != reference.digest:
        raise AttachmentCorrupt(f"the file {path} changed while it was read: send it once it is complete")
