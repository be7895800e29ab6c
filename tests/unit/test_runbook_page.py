"""Alerts, dashboards and the runbook say the same: a section for each alert and no other, files written from their
source."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from interfaces.metrics import METRICS, WORKER_RESTARTS
from tests.services.prometheus import DEPLOYED, deployed_rules

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
