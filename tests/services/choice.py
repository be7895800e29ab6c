"""Which servers a test run gets: given URLs, else containers, else local processes, else a failure that says why.

The order is the promise, and a way that was passed over is told with its reason. SWITCHBOARD_TEST_SERVERS=env,
containers or local allows one way only. Called by `tests/conftest.py`.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from docker.errors import DockerException

from tests.services.containers import Containers
from tests.services.local import Local
from tests.services.packages import CannotProvide
from tests.services.servers import Given, Provider, Servers, version_at

FORCE = "SWITCHBOARD_TEST_SERVERS"
AMQP_URL = "SWITCHBOARD_TEST_AMQP_URL"
REDIS_URL = "SWITCHBOARD_TEST_REDIS_URL"


@dataclass(frozen=True, slots=True)
class Choice:
    """The servers of a run, and why other ways were passed over."""

    servers: Servers
    passed_over: tuple[str, ...]

    def __str__(self) -> str:
        versions = f"{version_at(self.servers.broker.url)}, {version_at(self.servers.redis.url)}"
        reasons = "".join(f"; not {reason}" for reason in self.passed_over)
        return f"servers for tests: {self.servers.description} ({versions}){reasons}"


def choose_servers(environ: Mapping[str, str] = os.environ) -> Choice:
    """Start or find the pair of servers. Raises `CannotProvide` with every reason."""
    given = _given(environ)
    if given is not None:
        return Choice(given, ())
    provider, passed_over = choose_provider(environ)
    with contextlib.ExitStack() as started:
        try:
            broker = provider.broker()
            started.callback(broker.remove_now)
            servers = Servers(provider.description, broker, provider.redis())
        except (OSError, RuntimeError, DockerException) as error:
            raise CannotProvide(f"{provider.description}: {error}") from error
        started.pop_all()
    return Choice(servers, passed_over)


def choose_provider(environ: Mapping[str, str] = os.environ) -> tuple[Provider, tuple[str, ...]]:
    """The first way that can start new servers, and the reasons of those passed over. Raises `CannotProvide`."""
    passed_over: list[str] = []
    ways: dict[str, Callable[[], Provider]] = {"containers": lambda: Containers(environ), "local": Local}
    forced = environ.get(FORCE)
    for name, way in ways.items():
        if forced in (name, "env", None):
            try:
                return way(), tuple(passed_over)
            except CannotProvide as reason:
                passed_over.append(f"{name}: {reason}")
    raise CannotProvide("; ".join(passed_over))


def _given(environ: Mapping[str, str]) -> Servers | None:
    forced = environ.get(FORCE)
    if forced not in (None, "env", "containers", "local"):
        raise CannotProvide(f"{FORCE} is env, containers or local, not {forced!r}")
    urls = environ.get(AMQP_URL), environ.get(REDIS_URL)
    if forced in ("containers", "local") or (urls == (None, None) and forced is None):
        return None
    amqp_url, redis_url = urls
    if amqp_url is None or redis_url is None:
        raise CannotProvide(f"set both {AMQP_URL} and {REDIS_URL}, or neither")
    return Servers("given by the environment", Given(amqp_url), Given(redis_url))
