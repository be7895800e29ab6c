"""A Redis Cluster of three primaries as local processes; with a replica for each it fails over within seconds.

It is put together by its own commands rather than by `redis-cli --cluster create`, which waits for seconds on end. Used
by the tests of clusters.
"""

import random
from typing import Any, Final

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.services.redis_node import RedisNode, wait_for
from tests.services.servers import Server, free_port

PRIMARIES: Final = 3
NODE_TIMEOUT_MILLISECONDS: Final = 1000


class ClusterNode(RedisNode):
    """One node."""

    def __init__(self) -> None:
        self.bus_port = free_port()
        super().__init__(
            *("--save", "", "--appendonly", "yes", "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MILLISECONDS), "--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0"),
            name="redis-node",
        )

    @property
    def node_id(self) -> str:
        return str(self.ask("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        return self.is_running and self.info("replication")["role"] == "master"


class RedisCluster(Server):
    """All nodes. `start` returns when every slot is served and every replica in step. Data stay until `remove`."""

    def __init__(self, *, has_replicas: bool = True) -> None:
        self.nodes = [ClusterNode() for _ in range((2 if has_replicas else 1) * PRIMARIES)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:PRIMARIES])
        self._is_formed = False

    @property
    def primaries(self) -> list[ClusterNode]:
        """The nodes that hold slots now."""
        return [node for node in self.nodes if node.is_primary]

    def owner(self, key: str | bytes) -> ClusterNode:
        """The primary that holds the slot of `key`, as most nodes see it."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        views = [self._holder_port(node, slot) for node in self.nodes if node.is_running]
        port = max(set(views), key=views.count)
        return next(node for node in self.nodes if node.port == port)

    def start_now(self) -> None:
        for node in self.nodes:
            if not node.is_running:
                node.start_now()
        if not self._is_formed:
            self._form()
            self._is_formed = True
        wait_for("a cluster in which every slot is served and every replica in step", self._is_complete)

    def stop_now(self) -> None:
        self.kill_now()

    def kill_now(self) -> None:
        for node in self.nodes:
            node.kill_now()

    def remove_now(self) -> None:
        for node in self.nodes:
            node.remove_now()

    def kill_primary(self, key: str | bytes = "any") -> ClusterNode:
        """SIGKILL to the primary that holds `key`, which is returned; `wait_failed_over` waits for its replica."""
        node = self.owner(key)
        node.kill_now()
        return node

    def wait_failed_over(self, before: ClusterNode) -> None:
        """Return when all slots are served without `before`."""

        def is_over() -> bool:
            others = [node for node in self.nodes if node is not before and node.is_running]
            return all(self._serves_everything(node) and before.port not in self._owners(node) for node in others)

        wait_for("a fail-over", is_over)

    def start_to_move(self, slot: int) -> tuple[ClusterNode, ClusterNode]:
        """Let a slot be on its way: its keys are moved by `move_keys`. Returns the node it leaves and the next one."""
        source = next(node for node in self.primaries if node.port == self._holder_port(node, slot))
        target = random.choice([node for node in self.primaries if node is not source])
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
        return source, target

    def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode, count: int) -> int:
        """Move up to `count` keys of a slot that is on its way; how many there were."""
        keys: Any = source.ask("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Give the slot, whose keys have all moved, to its next node."""
        target_id = target.node_id
        for node in (target, source, *self.primaries):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def _form(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        first = primaries[0]
        bounds = [REDIS_CLUSTER_HASH_SLOTS * n // PRIMARIES for n in range(PRIMARIES + 1)]
        for number, node in enumerate(primaries):
            node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        wait_for("nodes that know each other", lambda: all(self._peers(node) == len(self.nodes) for node in self.nodes))
        for replica, primary in zip(replicas, primaries, strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.node_id)

    def _is_complete(self) -> bool:
        return all(
            self._serves_everything(node)
            and len({holder[1] for _, _, *holders in _slots(node) for holder in holders}) == len(self.nodes)
            and (node.is_primary or node.info("replication")["master_link_status"] == "up")
            for node in self.nodes
        )

    @staticmethod
    def _peers(node: ClusterNode) -> int:
        return str(node.ask("CLUSTER", "NODES")).count("connected")

    @staticmethod
    def _serves_everything(node: ClusterNode) -> bool:
        return "cluster_state:ok" in str(node.ask("CLUSTER", "INFO"))

    @staticmethod
    def _owners(node: ClusterNode) -> set[int]:
        return {int(primary[1]) for _, _, primary, *_ in _slots(node)}

    @staticmethod
    def _holder_port(node: ClusterNode, slot: int) -> int:
        for first, last, primary, *_ in _slots(node):
            if first <= slot <= last:
                return int(primary[1])
        return 0


def _slots(node: ClusterNode) -> Any:
    with redis.Redis(port=node.port, socket_timeout=10) as client:
        # Not by name, for which the client library has a callback of its own.
        return client.execute_command("CLUSTER", "SLOTS")
