"""Attachments on this machine's disk: a bounded number of bytes in one directory that any number of processes share.

A file appears under its digest by a rename, so nobody ever reads half of one, and it may go at any moment, so nobody
relies on it being there. A file that an interface is still to open has a second name, a hard link, which says until
when it must stay. Only names this module or `DataAttachment.get_bytes` gives are counted or deleted, and no link is
followed. Used by the attachment transfer.
"""

import asyncio
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from interfaces.errors import AttachmentStoreUnavailable, SettingsInvalid
from interfaces.local_files import PARTIAL, open_regular, remove_older
from interfaces.references import Reference

WANTED_SECONDS: Final = 300
"""For how long at least a file stays that was given to an interface. The interface opens it when its turn comes, behind
the other attachments of the message, and does not say when it has: there is no end to wait for but a time. Files wanted
at the same time share a name, so it is at most twice as long."""

MAX_FILES: Final = 4096
"""All are looked at whenever one is added; as many take some milliseconds."""

PARTIAL_SECONDS: Final = 3600.0

_NAME: Final = re.compile(
    r"(?P<digest>[0-9a-f]{64})(\.(?P<until>[0-9]{10,12}))?"
    rf"|(?P<partial>{re.escape(PARTIAL)}.*)"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",  # `DataAttachment.get_bytes`, Chatsky's and ours
    re.ASCII,
)


class _Entry(NamedTuple):
    used: float
    path: Path
    inode: int
    size: int


class AttachmentCache:
    """The cache in `directory`, which is made where it is missing, of at most `max_bytes`.

    It is larger only where files that are being written, or were just given to an interface, are more than that.
    Raises `SettingsInvalid` for a directory that cannot be used. Methods raise `AttachmentStoreUnavailable` where the
    disk fails.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        hint = "name another in SWITCHBOARD_ATTACHMENTS_DIRECTORY"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = directory.stat().st_mode
        except OSError as error:
            raise SettingsInvalid(f"attachments directory {directory}: {error.strerror}; {hint}") from error
        if mode & stat.S_IWOTH:
            raise SettingsInvalid(
                f"attachments directory {directory}: every user of this machine may write there, so what is read from "
                f"it cannot be trusted; chmod o-w, or {hint}"
            )

    async def read(self, reference: Reference) -> bytes | None:
        """The bytes, where they are here."""
        with self._disk_errors():
            return await asyncio.to_thread(self._read, reference)

    async def add(self, reference: Reference, data: bytes) -> None:
        """Keep verified bytes for the next reader, unless they alone are too many."""
        if len(data) <= self.max_bytes:
            with self._disk_errors():
                await asyncio.to_thread(self._add, reference.digest, data)

    async def local_file(self, reference: Reference, chunks: AsyncIterator[bytes]) -> Path:
        """A file with the bytes that stays for `WANTED_SECONDS`; taken from `chunks` where they are not here.

        `chunks` raises where its bytes turn out to be wrong; nothing is kept of them then.
        """
        until = int(time.time() / WANTED_SECONDS + 2) * WANTED_SECONDS
        path = self.directory / f"{reference.digest}.{until}"
        with self._disk_errors():
            if not await asyncio.to_thread(self._name, reference, path):
                with self._written(path.name) as file:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(self._share, path, reference.digest)
        return path

    @contextmanager
    def scratch(self) -> Iterator[BinaryIO]:
        """A file without a name for bytes nobody knows the reference of; gone at the end of the block."""
        with self._disk_errors(), tempfile.TemporaryFile(dir=self.directory) as file:
            yield file

    async def trim(self) -> None:
        """Delete what is used least until the bound is kept, and what killed processes left."""
        with self._disk_errors():
            await asyncio.to_thread(self._trim)

    def _read(self, reference: Reference) -> bytes | None:
        try:
            file = open_regular(self.directory / reference.digest, os.O_NOFOLLOW)
        except OSError:  # missing, or a link
            file = None
        if file is None:
            return None
        with file:
            with suppress(OSError):  # another user's file
                os.utime(file.fileno())
            # Another size says that a crash of the machine cost a part of it; the next one to add it replaces it.
            return file.read() if os.fstat(file.fileno()).st_size == reference.size else None

    def _add(self, name: str, data: bytes) -> None:
        with self._written(name) as file:
            file.write(data)
        self._trim()

    def _name(self, reference: Reference, path: Path) -> bool:
        """Give a file that is here the name `path` too; False where there is none, or no hard links."""
        with suppress(OSError):
            os.link(self.directory / reference.digest, path, follow_symlinks=False)
        try:
            info = path.lstat()
            os.utime(path, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == reference.size

    def _share(self, path: Path, name: str) -> None:
        """Let other readers find what was written as `path`. It is no loss where that cannot be."""
        with suppress(OSError):
            os.link(path, self.directory / name, follow_symlinks=False)
        self._trim()

    @contextmanager
    def _written(self, name: str) -> Iterator[BinaryIO]:
        """A new file that gets its name in one step once the block ends, and is dropped where the block raises."""
        partial = self.directory / f"{PARTIAL}{secrets.token_hex(8)}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            partial.replace(self.directory / name)
        finally:
            partial.unlink(missing_ok=True)

    def _trim(self) -> None:
        now = time.time()
        remove_older(self.directory, f"{PARTIAL}*", PARTIAL_SECONDS)
        sizes: dict[int, int] = {}
        wanted: set[int] = set()
        entries: list[_Entry] = []
        for entry, until in self._entries():
            if until is not None and until <= now:
                entry.path.unlink(missing_ok=True)
                continue
            sizes[entry.inode] = entry.size  # A file with two names takes its place once.
            if until is None:
                entries.append(entry)
            else:
                wanted.add(entry.inode)
        total = sum(sizes.values())
        for number, entry in enumerate(sorted(entries)):
            if total <= self.max_bytes and len(entries) - number <= MAX_FILES:
                return
            if entry.inode not in wanted:
                entry.path.unlink(missing_ok=True)
                total -= entry.size

    def _entries(self) -> Iterator[tuple[_Entry, float | None]]:
        """Every file that is ours, and until when it is wanted: for ever, where it is still being written."""
        with os.scandir(self.directory) as found:
            for item in found:
                match = _NAME.fullmatch(item.name)
                with suppress(FileNotFoundError):
                    info = item.stat(follow_symlinks=False)
                    if match is None or not stat.S_ISREG(info.st_mode):
                        continue
                    until = float("inf") if match["partial"] else float(match["until"]) if match["until"] else None
                    yield _Entry(info.st_mtime, self.directory / item.name, info.st_ino, info.st_size), until

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AttachmentStoreUnavailable(
                f"attachments directory {self.directory}: {error.strerror or error}; make room there, or name another "
                "in SWITCHBOARD_ATTACHMENTS_DIRECTORY"
            ) from error
