"""Health: live while the event loop turns, ready only where all that is needed is there, told by HTTP and a file."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from interfaces.errors import SettingsInvalid
from interfaces.metrics import Metrics
from interfaces.telemetry import Telemetry
from tests.services.scrape import get
from worker.cli import health as command
from worker.exposition import registry_of
from worker.health import STALE_SECONDS, Health, Pulse
from worker.health_server import application, served
from worker.settings import load_settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def address(health: Health) -> Iterator[str]:
    probes = {"/healthz": health.live, "/readyz": health.ready}
    with served("127.0.0.1:0", application(registry_of(Metrics()), probes)) as port:
        yield f"127.0.0.1:{port}"


def test_a_loop_that_has_stood_still_is_neither_live_nor_ready(health: Health, clock: Clock) -> None:
    health.note({"redis": True})
    assert (health.live().is_well, health.ready().is_well) == (True, True)
    clock.now += STALE_SECONDS
    assert (health.live().is_well, health.ready().is_well) == (False, False)
    health.note({"redis": True})
    assert health.live().is_well


def test_what_is_missing_makes_it_unready_and_never_dead(health: Health) -> None:
    assert (health.live().is_well, health.ready().is_well) == (True, False)  # it has not begun
    health.note({"redis": False, "rabbitmq": True})
    assert (health.live().is_well, health.ready().is_well) == (True, False)


def test_probes_answer_200_or_503_and_say_why(address: str, health: Health, clock: Clock) -> None:
    health.note({"redis": False, "rabbitmq": True})
    assert get(address, "/healthz") == (200, '{"status": "live", "seconds_since_the_loop_turned": 0.0}\n')
    assert get(address, "/readyz") == (503, '{"status": "unready", "redis": false, "rabbitmq": true}\n')
    clock.now += 60
    status, body = get(address, "/healthz")
    assert (status, json.loads(body)) == (503, {"status": "stuck", "seconds_since_the_loop_turned": 60.0})


def test_metrics_are_served_and_no_other_path_is(address: str) -> None:
    assert "switchboard_turns_total" in get(address, "/metrics")[1]
    assert get(address, "/")[0] == get(address, "/metricsx")[0] == 404


def test_an_address_that_cannot_be_listened_on_is_a_fault_of_the_settings(address: str) -> None:
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_HEALTH_ADDRESS"), served(address, lambda *_: []):
        pass


@pytest.mark.parametrize("wrong", ["9464", "localhost", ":9464", "host:port", "host:99999"])
def test_an_address_must_be_a_host_and_a_port(wrong: str) -> None:
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_HEALTH_ADDRESS: it must be host:port"):
        load_settings(health_address=wrong)


async def test_the_pulse_touches_its_file_and_measures_the_loop(tmp_path: Path, health: Health) -> None:
    file, telemetry = tmp_path / "alive", Telemetry()
    looks: list[None] = []

    def look() -> dict[str, bool]:
        looks.append(None)
        if len(looks) > 1:
            pulse.cancel()
        else:
            os.utime(file, (0, 0))
        return {}

    pulse = Pulse(telemetry, health, look, file).start()
    await asyncio.gather(pulse, return_exceptions=True)
    assert time.time() - file.stat().st_mtime < STALE_SECONDS
    assert sum(telemetry.metrics.event_loop_lag_seconds.counts) == 1
    assert (telemetry.metrics.ready, health.ready().is_well) == (1, True)


async def test_a_file_that_cannot_be_touched_is_a_fault_of_the_settings(tmp_path: Path, health: Health) -> None:
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_HEALTH_FILE"):
        Pulse(Telemetry(), health, dict, tmp_path / "missing" / "alive").start()


def test_the_command_ends_with_0_while_the_file_is_fresh_and_with_1_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "alive"

    def code() -> int:
        return CliRunner().invoke(command.command, ["--file", str(file)]).exit_code

    assert code() == 1
    file.touch()
    assert code() == 0
    long_ago = time.time() - STALE_SECONDS
    os.utime(file, (long_ago, long_ago))
    assert code() == 1


def test_the_command_means_the_same_by_stale_as_the_worker() -> None:
    assert command.STALE_SECONDS == STALE_SECONDS
