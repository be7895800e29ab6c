"""Alerts, dashboards and the runbook say the same: a section for each alert and no other, files written from their
source."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from interfaces.metrics import METRICS, WORKER_RESTARTS
from tests.alerts.causes import CAUSES
from tests.services.prometheus import DEPLOYED, deployed_rules
from worker.cli.ending import CLOSING_SECONDS

ROOT = Path(__file__).parents[2]
RULES = {rule["alert"]: rule for rule in deployed_rules()}
SECTIONS = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text()))
SAMPLES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPOSED = {f"{metric.full_name}{end}" for metric in (*METRICS, WORKER_RESTARTS) for end in SAMPLES[metric.kind]}


def test_every_alert_has_its_section_in_their_order() -> None:
    assert list(SECTIONS) == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_leads_to_its_section_which_begins_with_its_severity_and_a_command(name: str) -> None:
    rule = RULES[name]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert SECTIONS[name].strip().startswith(f"*{rule['labels']['severity']}.*")
    assert re.search(r"```bash\nswitchboard ", SECTIONS[name])


def test_every_alert_is_caused_and_was_seen_to_fire() -> None:
    assert {alert for cause in CAUSES.values() for alert in cause.alerts} == set(RULES)
    seen = re.findall(r"^\| \[(\w+)\]", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert set(seen) == set(RULES)
    assert len(seen) == sum(len(cause.alerts) for cause in CAUSES.values())


@pytest.mark.parametrize("file", [DEPLOYED / "alerts.yaml", ROOT / "deploy/grafana/dashboards/switchboard.json"])
def test_every_metric_that_is_asked_for_exists(file: Path) -> None:
    asked = set(re.findall(r"\bswitchboard_\w+", file.read_text()))
    assert asked
    assert asked <= EXPOSED


def test_the_dashboard_is_what_its_source_writes() -> None:
    written = runpy.run_path(str(ROOT / "deploy/grafana/dashboards.py"))["text"]()
    assert (ROOT / "deploy/grafana/dashboards/switchboard.json").read_text() == written


def test_no_panel_lies_over_another() -> None:
    panels: list[dict[str, Any]] = json.loads((ROOT / "deploy/grafana/dashboards/switchboard.json").read_text())[
        "panels"
    ]
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_grafana_finds_the_source_and_the_directory_of_the_dashboard() -> None:
    grafana = ROOT / "deploy/grafana"
    [source] = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((grafana / "provisioning/dashboards/switchboard.yaml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    panels = json.loads((grafana / "dashboards/switchboard.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {source["uid"]}
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]
    assert source["url"] == "http://prometheus:9090"
    assert compose["services"]["prometheus"]["ports"][0].endswith(":9090")


def test_compose_leaves_workers_longer_than_they_drain() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    worker = compose["services"]["worker"]
    grace = float(worker["stop_grace_period"].removesuffix("s"))
    assert grace >= float(worker["environment"]["SWITCHBOARD_DRAIN_TIMEOUT"]) + CLOSING_SECONDS
