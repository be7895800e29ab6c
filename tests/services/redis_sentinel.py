"""A Redis primary with replicas and three sentinels, as local processes that fail over within seconds.

Each process has the guard of `local.py`, so none outlives the run. Time limits are as short as a busy machine allows; a
fail-over by a killed primary takes DOWN_AFTER plus one election. Used by the fail-over tests and the chaos suite.
"""

from typing import Final

import redis

from tests.services.redis_node import RedisNode, wait_for
from tests.services.servers import Server

PRIMARY: Final = "switchboard"
DOWN_AFTER_MILLISECONDS: Final = 1000
FAILOVER_TIMEOUT_MILLISECONDS: Final = 3000
SENTINELS: Final = 3


class RedisWithSentinel(Server):
    """All of them. `start` returns when every replica is in step and every sentinel knows the others.

    `kill` and `stop` end them all, `kill_primary` the primary only. Data stay until `remove`. Where commits must be on
    a replica, take two: one is promoted, and needs one itself. `options` are those of the data servers.
    """

    def __init__(self, *options: str, replicas: int = 1) -> None:
        data = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0", *options)
        self.nodes = [RedisNode(*data, name="redis-primary")]
        follow = ("--replicaof", f"127.0.0.1 {self.nodes[0].port}")
        self.nodes += [RedisNode(*data, *follow, name="redis-replica") for _ in range(replicas)]
        self.sentinels = [self._sentinel() for _ in range(SENTINELS)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{PRIMARY}/0"

    @property
    def primary(self) -> RedisNode:
        """The server that most sentinels call the primary."""
        ports = [self._primary_port(sentinel) for sentinel in self.sentinels if sentinel.is_running]
        port = max(set(ports), key=ports.count)
        return next(node for node in self.nodes if node.port == port)

    @property
    def replicas(self) -> list[RedisNode]:
        """The others."""
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def start_now(self) -> None:
        for server in (*self.nodes, *self.sentinels):
            if not server.is_running:
                server.start_now()
        wait_for("a replica in step, and sentinels that know each other", self._is_complete)

    def stop_now(self) -> None:
        self.kill_now()

    def kill_now(self) -> None:
        # Sentinels first: they would fail over.
        for server in (*self.sentinels, *self.nodes):
            server.kill_now()

    def remove_now(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.remove_now()

    def kill_primary(self) -> RedisNode:
        """SIGKILL to the primary, which is returned; `wait_failed_over` waits for the next one."""
        primary = self.primary
        primary.kill_now()
        return primary

    def wait_failed_over(self, before: RedisNode) -> None:
        """Return when every sentinel calls another server the primary than `before`, and that one takes writes."""
        ports = {node.port for node in self.nodes if node is not before}

        def is_over() -> bool:
            named = {self._primary_port(sentinel) for sentinel in self.sentinels}
            return named <= ports and self.primary.info("replication")["role"] == "master"

        wait_for("a fail-over", is_over)

    def _is_complete(self) -> bool:
        replication = self.primary.info("replication")
        in_step = [n for n in range(len(self.nodes)) if replication.get(f"slave{n}", {}).get("state") == "online"]
        return len(in_step) == len(self.nodes) - 1 and all(self._is_informed(sentinel) for sentinel in self.sentinels)

    def _is_informed(self, sentinel: RedisNode) -> bool:
        with redis.Redis(port=sentinel.port, socket_timeout=10, decode_responses=True) as client:
            state = client.sentinel_master(PRIMARY)
        knows_all = (state["num-other-sentinels"], state["num-slaves"]) == (SENTINELS - 1, len(self.nodes) - 1)
        return knows_all and not state["is_sdown"]

    @staticmethod
    def _primary_port(sentinel: RedisNode) -> int:
        with redis.Redis(port=sentinel.port, socket_timeout=10, decode_responses=True) as client:
            return int(client.sentinel_get_master_addr_by_name(PRIMARY)[1])

    def _sentinel(self) -> RedisNode:
        sentinel = RedisNode("sentinel.conf", "--sentinel", name="sentinel")
        # It writes what it learns into this file, and so knows it after a restart.
        (sentinel.directory / "sentinel.conf").write_text(
            f"sentinel monitor {PRIMARY} 127.0.0.1 {self.nodes[0].port} {SENTINELS // 2 + 1}\n"
            f"sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER_MILLISECONDS}\n"
            f"sentinel failover-timeout {PRIMARY} {FAILOVER_TIMEOUT_MILLISECONDS}\n"
            f"sentinel parallel-syncs {PRIMARY} 1\n"
        )
        return sentinel
