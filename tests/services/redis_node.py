"""Single Redis processes of a test's own, to be frozen, asked and killed one by one: what groups of them are made of.

Each has the guard of `local.py`, so none outlives the run. Used by `redis_sentinel.py` and `redis_cluster.py`.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import redis

from tests.services.local import LocalServer
from tests.services.servers import free_port

FAIL_OVER_SECONDS = 60


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

    def info(self, section: str) -> dict[str, Any]:
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
