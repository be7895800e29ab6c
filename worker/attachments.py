"""The attachment transfer that the settings describe. Made once in each process that moves attachments.

Called by the commands that run a worker or an edge.
"""

import ctypes
from contextlib import suppress
from typing import Final

from interfaces.allowed_hosts import parse_allowed
from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import CHUNK_BYTES, AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.url_fetching import FetchRules
from worker.settings import Settings

M_MMAP_THRESHOLD: Final = -3
"""From glibc's malloc.h."""


def open_transfer(settings: Settings) -> AttachmentTransfer:
    """Nothing is connected yet. Raises `SettingsInvalid` where `attachments_directory` cannot be used."""
    _give_freed_memory_back()
    store = AttachmentStore(
        settings.attachments_url, max_bytes=settings.attachments_max_bytes, ttl=settings.attachments_ttl
    )
    cache = AttachmentCache(settings.attachments_directory, max_bytes=settings.attachments_cache_bytes)
    rules = FetchRules(parse_allowed(settings.fetch_from), settings.fetch_timeout)
    return AttachmentTransfer(store, cache, across_processes=not settings.is_embedded, rules=rules)


def _give_freed_memory_back() -> None:
    """Keep glibc from keeping blocks as large as the largest that was ever freed, once for every thread.

    By its own rule files of 20 MiB take a process to between 125 and 165 MiB, with a fixed threshold to 80 MiB.
    """
    with suppress(OSError, AttributeError):  # another C library has no such rule, and no such function
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, CHUNK_BYTES)
