"""Fixtures every test may use: the servers of the run, throw-away ones for faults, and Node's AMQP client.

Servers are started once, before the first test and outside any test's time limit, and only where a collected test asks
for them. What cannot be had is an error in each test that needs it, never a skip; on CI a skip fails the run.
"""

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from interfaces.nested_loops import nested_loops_prevented
from tests.services.choice import Choice, choose_provider, choose_servers
from tests.services.node import install_amqplib
from tests.services.packages import CannotProvide
from tests.services.servers import Broker, Server, Servers
from tests.services.settling_loop import SettlingLoop

TEST_PREFIX = "SWITCHBOARD_TEST_"
FIGURE = "figure"
"""Property of a test that is shown at the end of the run."""

SERVERS = pytest.StashKey[Choice | CannotProvide]()
AMQPLIB = pytest.StashKey[Path | CannotProvide]()


# A time limit per example would test the machine.
settings.register_profile("switchboard", deadline=None)
settings.load_profile("switchboard")


IMPORTING_CHATSKY = ExitStack()


def pytest_asyncio_loop_factories() -> dict[str, type[SettlingLoop]]:
    return {"settling": SettlingLoop}


def pytest_configure() -> None:
    # A run in the background ignores SIGINT, and what the tests start would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Test modules import Chatsky at their top, as bots do, and the event loops of all tests must stay what they are.
    IMPORTING_CHATSKY.enter_context(nested_loops_prevented())
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_") and not name.startswith(TEST_PREFIX)]:
        del os.environ[name]  # a developer's own settings must not decide what the tests find


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "servers" in wanted:
        _tell(session.config, "getting servers for tests (building or installing them takes minutes, once)")
        session.config.stash[SERVERS] = outcome = _start_servers()
        _tell(session.config, str(outcome) if isinstance(outcome, Choice) else f"no servers for tests: {outcome}")
    if "node_amqplib" in wanted:
        try:
            session.config.stash[AMQPLIB] = install_amqplib()
        except CannotProvide as error:
            session.config.stash[AMQPLIB] = error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # Logged lone surrogates cannot travel from the process that ran the test to the one that shows its outcome.
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    figures = [
        f"{report.location[2]}: {figure}"
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, figure in report.user_properties
        if name == FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(figure)


def pytest_unconfigure(config: pytest.Config) -> None:
    IMPORTING_CHATSKY.close()
    choice = config.stash.get(SERVERS, None)
    if isinstance(choice, Choice):
        choice.servers.remove()


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The RabbitMQ and Redis of this run, where a test may also stop and start them (it leaves them running)."""
    choice = pytestconfig.stash[SERVERS]
    if isinstance(choice, CannotProvide):
        pytest.fail(f"no servers for tests: {choice}")
    return choice.servers


@pytest.fixture(scope="session")
def amqp_url(servers: Servers) -> str:
    return servers.broker.url


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    return servers.redis.url


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A RabbitMQ for one test, to be stopped, killed or filled at will (five to ten seconds to start)."""
    broker = choose_provider()[0].broker()
    yield broker
    broker.remove_now()


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A Redis for one test."""
    server = choose_provider()[0].redis()
    yield server
    server.remove_now()


@pytest.fixture(scope="session")
def node_amqplib(pytestconfig: pytest.Config) -> Path:
    """A directory whose `node_modules` holds `amqplib`: run `node` there."""
    directory = pytestconfig.stash[AMQPLIB]
    if isinstance(directory, CannotProvide):
        pytest.fail(f"no amqplib for Node: {directory}")
    return directory


def _tell(config: pytest.Config, line: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)


def _start_servers() -> Choice | CannotProvide:
    try:
        return choose_servers()
    except CannotProvide as error:
        return error
