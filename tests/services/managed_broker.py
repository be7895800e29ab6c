"""A RabbitMQ with its management plugin, for what only its HTTP API shows."""

from tests.services.local import LocalBroker
from tests.services.servers import free_port


class ManagedBroker(LocalBroker):
    """One node; `guest` is its administrator, by AMQP and by the API."""

    def __init__(self) -> None:
        super().__init__()
        port = free_port()
        self.management_url = f"http://127.0.0.1:{port}"
        with (self.directory / "rabbitmq.conf").open("a") as configuration:
            configuration.write(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n")
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
