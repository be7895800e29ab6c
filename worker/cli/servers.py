"""The servers as a short command uses them: opened once, always closed, and named without their passwords."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pydantic import SecretStr

from interfaces.brokers import Broker
from interfaces.brokers.nodes import node_urls
from interfaces.brokers.opening import open_broker
from interfaces.errors import SettingsInvalid
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings
from worker.stores import ContextStore
from worker.stores.opening import open_store


def shown(url: SecretStr) -> str:
    """`url` for people to read: scheme, all hosts with their ports, and path. User, password and query stay out."""
    return ",".join(map(_shown, node_urls(url.get_secret_value())))


def _shown(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def is_memory(url: SecretStr) -> bool:
    """Whether this server is embedded in the process that names it."""
    return urlsplit(url.get_secret_value()).scheme == "memory"


def refuse_memory(url: SecretStr, field: str, hint: str = "") -> None:
    """Raise `SettingsInvalid` where a command would look into an embedded server, which is empty by nature."""
    if is_memory(url):
        raise SettingsInvalid(
            f"{ENV_PREFIX}{field.upper()} is {shown(url)}, which is kept inside one process and nowhere else: "
            f"there is nothing in it for another command. Set it to the server the workers use{hint}."
        )


@asynccontextmanager
async def opened_broker(settings: Settings) -> AsyncIterator[Broker]:
    """The broker of the settings, open. Raises `SettingsInvalid`, `BrokerRefused` or `BrokerUnavailable`."""
    refuse_memory(settings.amqp_url, "amqp_url")
    broker = open_broker(settings.amqp_url.get_secret_value(), publish_timeout=settings.publish_timeout)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[ContextStore]:
    """The store of the settings, open. Raises `SettingsInvalid`, `StoreRefused` or `StoreUnavailable`."""
    refuse_memory(settings.redis_url, "redis_url")
    store = open_store(settings)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
