"""The attachment transfer that the settings describe. Made once in each process that moves attachments."""

from interfaces.attachment_cache import AttachmentCache
from interfaces.attachment_store import AttachmentStore
from interfaces.attachment_transfer import AttachmentTransfer
from worker.settings import Settings


def open_transfer(settings: Settings) -> AttachmentTransfer:
    """Nothing is connected yet. Raises `SettingsInvalid` where `attachments_directory` cannot be used."""
    store = AttachmentStore(
        settings.attachments_url, max_bytes=settings.attachments_max_bytes, ttl=settings.attachments_ttl
    )
    cache = AttachmentCache(settings.attachments_directory, max_bytes=settings.attachments_cache_bytes)
    return AttachmentTransfer(store, cache, across_processes=not settings.is_embedded)
