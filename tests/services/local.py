"""RabbitMQ and Redis as local processes with everything of theirs in a temporary directory.

Nothing of them may outlive the test run, however it ends: each server belongs to a guard, a shell in a session of its
own that reads from a pipe. When the run closes the pipe, or dies and the kernel closes it, the guard kills its whole
process group. A broker has its own epmd, cookie and ports, so neither a system RabbitMQ nor a parallel
run is seen or disturbed. Called by `tests/services/choice.py`.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.packages import require_programs
from tests.services.servers import STOP_SECONDS, Broker, Server, free_port, wait_until_ready

# Debian's wrapper in /usr/sbin insists on root or the user rabbitmq; the scripts behind it run as anybody.
RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/bin"
SEARCH_PATH = f"{RABBITMQ_SCRIPTS}:{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
PACKAGES = {"rabbitmq-server": "rabbitmq-server", "epmd": "erlang-base", "redis-server": "redis-server"}

# Prints the server's process id, and ends the group when the server has ended or standard input has. The directory
# stays when a line was read (a stop), and goes when none came (the run is over, perhaps because it was killed).
GUARD = """
( "$@" >>"$SERVER_LOG" 2>&1 </dev/null & echo $!; exec >&-; wait $!; kill -KILL 0 ) &
read -r _ || rm -rf "$SERVER_DIRECTORY"
kill -KILL 0
"""


class LocalServer(Server):
    """One server process under its guard."""

    def __init__(self, name: str, url: str, command: list[str]) -> None:
        self.url = url
        self.directory = Path(tempfile.mkdtemp(prefix=f"switchboard-{name}-"))
        self._command = command
        self._log = self.directory / "server.log"
        self.environ = {
            "PATH": SEARCH_PATH,
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "SERVER_DIRECTORY": str(self.directory),
            "SERVER_LOG": str(self._log),
        }
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """Process id of the server, once started."""
        return self._pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._guard is not None

    def start_now(self) -> None:
        if self._guard is not None:
            raise RuntimeError(f"the server for {self.url} runs already")
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environ,
            cwd=self.directory,
            start_new_session=True,
        )
        guard = self._guard
        assert guard.stdout is not None
        self._pid = int(guard.stdout.readline())
        try:
            self._wait_until_ready(exited=lambda: guard.poll() is not None)
        except (TimeoutError, RuntimeError):
            self.kill_now()
            raise

    def stop_now(self) -> None:
        if self._guard is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
        try:
            self._guard.wait(STOP_SECONDS)
        finally:
            self.kill_now()

    def kill_now(self) -> None:
        if self._guard is None:
            return
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._guard.communicate("stop\n", timeout=STOP_SECONDS)
        self._guard.wait()
        self._guard = None

    def remove_now(self) -> None:
        self.kill_now()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_until_ready(self, exited: Callable[[], bool]) -> None:
        wait_until_ready(self.url, self._log_end, exited)

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""


class LocalRedis(LocalServer):
    """A Redis that keeps its data over a restart, as a production one would (append-only file)."""

    def __init__(self) -> None:
        port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "yes"]
        super().__init__("redis", f"redis://127.0.0.1:{port}/0", ["redis-server", *options])


@dataclass(frozen=True, slots=True)
class ErlangWorld:
    """What Erlang nodes must have in common to see each other."""

    epmd_port: int = field(default_factory=free_port)
    cookie: str = field(default_factory=lambda: secrets.token_hex(16))


class LocalBroker(LocalServer, Broker):
    """A RabbitMQ node, of an Erlang world of its own where none is given."""

    def __init__(self, world: ErlangWorld | None = None) -> None:
        world = world or ErlangWorld()
        port = free_port()
        command = ["/bin/sh", "-c", 'epmd & exec rabbitmq-server "$@"', "rabbitmq-server"]
        super().__init__("rabbitmq", f"amqp://guest:guest@127.0.0.1:{port}/", command)
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(world.cookie)
        cookie.chmod(0o400)
        (self.directory / "rabbitmq.conf").write_text("loopback_users = none\n")
        (self.directory / "enabled_plugins").write_text("[].\n")
        self.node = f"switchboard-{port}@localhost"
        """Its name among Erlang nodes."""
        self.environ |= self._node_environ(port, world)

    def _node_environ(self, port: int, world: ErlangWorld) -> dict[str, str]:
        here = str(self.directory)
        return {
            "ERL_EPMD_PORT": str(world.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_LOGS": "-",
            # Tests share their cores with the servers: no busy waiting, and no schedulers bound to one core each, where
            # they would keep whoever else runs there waiting while others are idle.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def rabbitmqctl_now(self, *args: str) -> str:
        done = subprocess.run(
            ["rabbitmqctl", *args],
            env=self.environ,
            executable=shutil.which("rabbitmqctl", path=SEARCH_PATH),
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)} failed: {done.stdout}{done.stderr}")
        return done.stdout


class Local:
    """Gives local servers. Raises `CannotProvide` where their programs are missing and cannot be installed."""

    description = "local processes"

    def __init__(self) -> None:
        require_programs(PACKAGES, SEARCH_PATH)

    def broker(self) -> Broker:
        broker = LocalBroker()
        broker.start_now()
        return broker

    def redis(self) -> Server:
        server = LocalRedis()
        server.start_now()
        return server
