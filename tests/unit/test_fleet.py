"""All processes of a supervisor in one answer: merged with their numbers, the mute ones left out and told apart."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from interfaces.metrics import Metrics
from worker import fleet as fleet_module
from worker.exposition import registry_of
from worker.fleet import Fleet, told_at
from worker.health import STALE_SECONDS, Health


class Process:
    """What a worker process tells of itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.health = Health(lambda: self.now)
        self.metrics = Metrics()


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="fleet-") as path:  # pytest's own are too deep for the name of a socket
        yield Path(path)


def samples(fleet: Fleet) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(fleet)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def of(process: str, **labels: str) -> frozenset[tuple[str, str]]:
    return frozenset({"process": process, **labels}.items())


def test_samples_of_all_processes_are_merged_each_with_its_number(directory: Path) -> None:
    one, two = Process(), Process()
    one.metrics.turns_total["ok"], two.metrics.turns_total["ok"] = 3, 4
    two.metrics.stage_seconds["load"].observe(0.001)
    fleet = Fleet(directory, 2, lambda: {1: 101, 2: 102}, lambda: 7)
    with told_at(directory, 101, registry_of(one.metrics), one.health):
        with told_at(directory, 102, registry_of(two.metrics), two.health):
            found = samples(fleet)
        alone = samples(fleet)
    assert found["switchboard_turns_total", of("1", outcome="ok")] == 3
    assert found["switchboard_turns_total", of("2", outcome="ok")] == 4
    assert found["switchboard_stage_seconds_bucket", of("2", stage="load", le="0.001")] == 1
    assert found["switchboard_worker_restarts_total", frozenset()] == 7
    assert found["process_cpu_seconds_total", of("1")] > 0
    assert not [labels for _, labels in alone if ("process", "2") in labels]
    assert alone["switchboard_turns_total", of("1", outcome="ok")] == 3


def test_one_that_is_stuck_makes_all_not_live_and_one_that_has_died_or_only_starts_does_not(directory: Path) -> None:
    one, two = Process(), Process()
    fleet = Fleet(directory, 2, lambda: {1: 101, 2: 102}, lambda: 0)
    with told_at(directory, 101, registry_of(one.metrics), one.health):
        one.health.note({})
        assert fleet.live().is_well  # the second one is only starting
        assert not fleet.ready().is_well
        with told_at(directory, 102, registry_of(two.metrics), two.health):
            two.health.note({})
            assert (fleet.live().is_well, fleet.ready().is_well) == (True, True)
            two.now += STALE_SECONDS
            assert fleet.live() == (False, {"status": "stuck", "processes": 2, "stuck": [2]})
        assert (fleet.live().is_well, fleet.ready().is_well) == (True, False)  # that one is gone


def test_one_that_takes_the_question_and_gives_no_answer_is_stuck_and_holds_up_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "ANSWER_SECONDS", 0.1)
    one = Process()
    with ExitStack() as stack:
        mute = stack.enter_context(socket.socket(socket.AF_UNIX))
        mute.bind(str(directory / "102.socket"))
        mute.listen()
        stack.enter_context(told_at(directory, 101, registry_of(one.metrics), one.health))
        fleet = Fleet(directory, 2, lambda: {1: 101, 2: 102}, lambda: 0)
        assert {dict(labels).get("process") for _, labels in samples(fleet)} == {"1", None}
        assert fleet.live() == (False, {"status": "stuck", "processes": 2, "stuck": [2]})


def test_an_answer_that_is_cut_off_is_none(directory: Path) -> None:
    whole = json.dumps({"live": [True, {}], "ready": [True, {}], "metrics": []}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "101.socket"))
        server.listen()

        def answer() -> None:
            for body in (whole, whole[:-5]):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(body)

        thread = threading.Thread(target=answer)
        thread.start()
        fleet = Fleet(directory, 1, lambda: {1: 101}, lambda: 0)
        assert fleet.ready().is_well
        assert not fleet.ready().is_well
        thread.join()
