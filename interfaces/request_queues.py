"""Which request queues a namespace has, for the interface that consumes them.

Here they are those of one topology and never change. `worker.generations` has those of a namespace whose number of
shards may change while it works.
"""

from interfaces.brokers import Broker
from interfaces.topology import Topology


class RequestQueues:
    """The queues of `topology` on `broker`. All methods raise as `Broker.apply` does."""

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self._broker = broker
        self.topology = topology
        """The last generation, the one that requests are published to."""

    def prefetch(self, queue: str) -> int:
        """Unacknowledged requests that a consumer of `queue` holds at most; see `Topology.prefetch`."""
        return self.topology.prefetch

    async def open(self) -> None:
        """Declare everything."""
        await self._broker.apply(self.topology)

    async def mend(self, queue: str) -> None:
        """Declare again what is missing: `queue` was looked for and not found."""
        await self._broker.apply(self.topology)

    async def passed(self, queue: str) -> None:
        """Every request of `queue` that came before its marker is settled. Of no interest where nothing changes."""
