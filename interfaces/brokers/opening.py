"""Chooses the broker for a URL. Imports the client library only where it is needed."""

from urllib.parse import urlsplit

from interfaces.brokers import Broker
from interfaces.brokers.nodes import node_urls, require_one_broker
from interfaces.errors import SettingsInvalid
from interfaces.telemetry import Telemetry


def open_broker(url: str, *, publish_timeout: float = 10.0, telemetry: Telemetry | None = None) -> Broker:
    """A broker object for `amqp://`, `amqps://` or `memory://NAME`; nothing is connected yet.

    Several nodes of a RabbitMQ cluster are whole URLs, separated by commas. All `memory://` brokers of one name in a
    process share their queues. Raises `SettingsInvalid` for another scheme, or for nodes that are not of one broker.
    """
    nodes = node_urls(url)
    try:
        require_one_broker(nodes)
    except ValueError as error:
        raise SettingsInvalid(f"broker URL: {error}") from None
    scheme = urlsplit(nodes[0]).scheme
    if scheme in ("amqp", "amqps"):
        from interfaces.brokers.rabbitmq import RabbitMQBroker

        return RabbitMQBroker(url, publish_timeout=publish_timeout, telemetry=telemetry)
    if scheme == "memory":
        from interfaces.brokers.memory import MemoryBroker, memory_server

        return MemoryBroker(memory_server(urlsplit(url).netloc))
    raise SettingsInvalid(f"broker URL: the scheme must be amqp, amqps or memory, not {scheme!r}")
