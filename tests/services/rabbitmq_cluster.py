"""A RabbitMQ cluster of three nodes as local processes, each of which can be killed and started by itself.

The nodes share a cookie and a name service (epmd) of the cluster's own, under a guard of its own: it must outlive the
nodes, or killing one would make the others strangers to each other. Used by tests, the availability programme and the
chaos suite.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tests.services.local import PACKAGES, SEARCH_PATH, ErlangWorld, LocalBroker, LocalServer
from tests.services.packages import require_programs

EPMD_SECONDS = 10
IN_SYNC_SECONDS = 60


class Epmd(LocalServer):
    """Erlang's name service, for one cluster."""

    def __init__(self, world: ErlangWorld) -> None:
        super().__init__("epmd", f"epmd://127.0.0.1:{world.epmd_port}", ["epmd"])
        self._port = world.epmd_port
        self.environ |= {"ERL_EPMD_PORT": str(self._port), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def _wait_until_ready(self, exited: Callable[[], bool]) -> None:
        deadline = time.monotonic() + EPMD_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError as error:
                if exited() or time.monotonic() > deadline:
                    raise RuntimeError(f"epmd did not come up on port {self._port}:\n{self._log_end()}") from error
            time.sleep(0.02)


class Cluster:
    """Nodes that have found each other. The `..._now` methods block; tests use the coroutines of the same names.

    It is made stopped. Raises `CannotProvide` where RabbitMQ is missing and cannot be installed.
    """

    def __init__(self, size: int = 3) -> None:
        require_programs(PACKAGES, SEARCH_PATH)
        world = ErlangWorld()
        self._epmd = Epmd(world)
        self.nodes: Sequence[LocalBroker] = [LocalBroker(world) for _ in range(size)]
        """By number; one node's own `url` leads to that node alone."""
        for node in self.nodes:
            with (node.directory / "rabbitmq.conf").open("a") as config:
                config.write("cluster_formation.peer_discovery_backend = classic_config\n")
                for number, peer in enumerate(self.nodes, start=1):
                    config.write(f"cluster_formation.classic_config.nodes.{number} = {peer.node}\n")

    @property
    def url(self) -> str:
        """The URLs of all nodes, as the product takes them."""
        return ",".join(node.url for node in self.nodes)

    def start_now(self) -> None:
        """Start every node; from the first time on they are one cluster. Raises as `Server.start` does."""
        self._epmd.start_now()
        # The first one alone: nodes that start together wait for each other's lock with pauses of up to 8 s.
        first, *others = self.nodes
        first.start_now()
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(node.start_now) for node in others]:
                started.result()
        status = json.loads(self.nodes[0].rabbitmqctl_now("-q", "--formatter", "json", "cluster_status"))
        found = len(status["running_nodes"])
        if found != len(self.nodes):
            raise RuntimeError(f"{found} of {len(self.nodes)} nodes have found each other")

    def remove_now(self) -> None:
        """End it for good, with its data. May be repeated."""
        for server in (*self.nodes, self._epmd):
            server.remove_now()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self.start_now)
        except (RuntimeError, TimeoutError):
            await self.remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.remove()

    async def remove(self) -> None:
        """End it for good, with its data. May be repeated."""
        await asyncio.to_thread(self.remove_now)

    async def kill(self, number: int) -> None:
        """SIGKILL one node; its data stays."""
        await self.nodes[number].kill()

    async def start(self, number: int) -> None:
        """Start one node again and return when it answers; its replicas may still have to catch up, see `in_sync`."""
        await self.nodes[number].start()

    async def leaders(self) -> Mapping[str, int]:
        """Number of the node that leads each quorum queue; one that is electing its leader is left out."""
        numbers = {node.node: number for number, node in enumerate(self.nodes)}
        return {queue["name"]: numbers[queue["leader"]] for queue in await self._quorum_queues("leader")}

    async def in_sync(self) -> None:
        """Return when every replica of every quorum queue is up. Raises `TimeoutError`.

        A queue that was declared while a node was away has no replica there.
        """
        async with asyncio.timeout(IN_SYNC_SECONDS):
            while True:
                queues = await self._quorum_queues("members", "online")
                if all(set(queue["online"]) == set(queue["members"]) for queue in queues):
                    return

    async def rabbitmqctl(self, *args: str) -> str:
        """What `rabbitmqctl ARGS` prints on the first node that runs. Raises `RuntimeError` where it fails."""
        return await next(node for node in self.nodes if node.is_running).rabbitmqctl(*args)

    async def _quorum_queues(self, *columns: str) -> list[dict[str, Any]]:
        listed = await self.rabbitmqctl("-q", "--formatter", "json", "list_queues", "name", "type", *columns)
        return [queue for queue in json.loads(listed) if queue["type"] == "quorum"]
