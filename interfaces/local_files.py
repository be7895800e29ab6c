"""Reading and clearing away files on this machine that somebody else may be changing meanwhile.

Nothing here waits for a device or follows a link by accident, and none of it may run in the event loop.
Called by attachments, their store and their cache, in threads.
"""

import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from interfaces.errors import AttachmentCorrupt, AttachmentMissing

BLOCK: Final = 1024 * 1024

PARTIAL: Final = ".partial-"
"""How names of files begin that are still being written, or whose writer was killed."""


def open_file(path: Path) -> BinaryIO:
    """`path` opened to be read. Raises `AttachmentMissing` where it is not a regular file, or cannot be read."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise AttachmentMissing(f"the file {path} cannot be read: {error.strerror}") from error
    if file is None:
        raise AttachmentMissing(f"{path} is no file that can be sent: name a regular file")
    return file


def open_regular(path: Path, flags: int = 0) -> BinaryIO | None:
    """`path` opened to be read, with more `flags` of `os.open`; `None` where it is not a regular file."""
    # Opened without O_NONBLOCK, a named pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def read_here(path: Path) -> bytes:
    """The bytes of `path` itself, never of what a link leads to. Raises `OSError`."""
    file = open_regular(path, os.O_NOFOLLOW)
    if file is None:
        raise FileNotFoundError(f"{path} is no regular file")
    with file:
        return file.read()


def write_here(path: Path, data: bytes) -> None:
    """Let `path` be a file with `data`, in one step, in place of what was there, be it a link. Raises `OSError`."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=PARTIAL, delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(data)
            file.flush()
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def hash_file(file: BinaryIO, size: int) -> str:
    """SHA-256 of the first `size` bytes, in hexadecimal. Raises `AttachmentCorrupt` where there are fewer."""
    hashed, left = hashlib.sha256(), size
    while left:
        block = file.read(min(left, BLOCK))
        if not block:
            raise AttachmentCorrupt(f"the file {file.name} was cut while it was read: send it once it is complete")
        left -= len(block)
        hashed.update(block)
    return hashed.hexdigest()


def remove_older(folder: Path, pattern: str, seconds: float) -> int:
    """Delete what `pattern` finds in `folder` and nobody has written to for `seconds`; how many that were."""
    removed = 0
    for path in folder.glob(pattern):
        with suppress(OSError):  # gone meanwhile, or not ours
            if time.time() - path.lstat().st_mtime > seconds:
                path.unlink()
                removed += 1
    return removed
