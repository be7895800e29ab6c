"""A Redis primary with a replica and three sentinels, as local processes that fail over within seconds.

Each process has the guard of `local.py`, so none outlives the run. Time limits are as short as a busy machine allows; a
fail-over by a killed primary takes DOWN_AFTER plus one election. Used by the fail-over tests and the chaos suite.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Final

import redis

from tests.services.local import LocalServer
from tests.services.servers import Server, free_port

PRIMARY: Final = "switchboard"
DOWN_AFTER_MILLISECONDS: Final = 1000
FAILOVER_TIMEOUT_MILLISECONDS: Final = 3000
SENTINELS: Final = 3
FAIL_OVER_SECONDS: Final = 60


class RedisNode(LocalServer):
    """A `redis-server` on a port of its own, with options of the test's choice."""

    def __init__(self, *options: str, name: str = "redis") -> None:
        self.port = free_port()
        super().__init__(name, f"redis://127.0.0.1:{self.port}/0", ["redis-server", *options])
        self._command += ["--bind", "127.0.0.1", "--port", str(self.port)]

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor killed."""
        return self._guard is not None

    def freeze(self) -> None:
        """Let it do nothing, not even answer, until `thaw`."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    def ask(self, *words: str | bytes | int) -> object:
        """What it answers to a command."""
        with redis.Redis(port=self.port, socket_timeout=10, decode_responses=True) as client:
            answer: object = client.execute_command(*words)
            return answer

    def info(self, section: str) -> dict[str, str | int]:
        """One section of its INFO."""
        with redis.Redis(port=self.port, socket_timeout=10, decode_responses=True) as client:
            return dict(client.info(section))


def wait_for(what: str, condition: Callable[[], bool], seconds: float = FAIL_OVER_SECONDS) -> None:
    """Return when `condition` holds; a server that does not answer yet counts as no. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, OSError):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class RedisWithSentinel(Server):
    """All five. `start` returns when the replica is in step and every sentinel knows the others.

    `kill` and `stop` end all five; `kill_primary` only the primary. Data stay until `remove`.
    """

    def __init__(self, *options: str) -> None:
        data = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0", *options)
        self.nodes = [RedisNode(*data, name="redis-primary")]
        self.nodes.append(RedisNode(*data, "--replicaof", f"127.0.0.1 {self.nodes[0].port}", name="redis-replica"))
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
    def replica(self) -> RedisNode:
        """The other one."""
        primary = self.primary
        return next(node for node in self.nodes if node is not primary)

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
        in_step = "online" in str(replication.get("slave0", ""))
        return in_step and all(self._is_informed(sentinel) for sentinel in self.sentinels)

    @staticmethod
    def _is_informed(sentinel: RedisNode) -> bool:
        with redis.Redis(port=sentinel.port, socket_timeout=10, decode_responses=True) as client:
            state = client.sentinel_master(PRIMARY)
        return state["num-other-sentinels"] == SENTINELS - 1 and state["num-slaves"] == 1 and not state["is_sdown"]

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
