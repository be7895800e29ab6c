"""Chooses the context store for the settings. Imports the client library only where it is needed."""

from typing import cast
from urllib.parse import urlsplit

from interfaces.telemetry import Telemetry
from worker.settings import Settings
from worker.stores import ContextStore, Retention
from worker.stores.sealed import SealedStore


def open_store(settings: Settings, telemetry: Telemetry | None = None) -> ContextStore:
    """A store object for `settings.redis_url`; nothing is connected yet."""
    store, keys = _open_plain(settings, telemetry), settings.keys
    return store if keys is None else cast("ContextStore", SealedStore(store, keys))


def _open_plain(settings: Settings, telemetry: Telemetry | None) -> ContextStore:
    retention = Retention(settings.outbox, settings.max_turns, settings.context_ttl)
    url = settings.redis_url.get_secret_value()
    if urlsplit(url).scheme == "memory":
        from worker.stores.memory import MemoryStore

        return MemoryStore(retention)
    from worker.stores.redis import RedisStore

    return RedisStore(
        url,
        settings.namespace,
        retention,
        timeout=settings.redis_timeout,
        durability=settings.durability,
        replicas=settings.replicas,
        cache_bytes=settings.context_cache_bytes,
        telemetry=telemetry,
    )
