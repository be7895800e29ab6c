"""Rules and dashboards by Prometheus' own tools, and each of their queries at a Prometheus that scrapes real workers:
under load, none finds nothing."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.alerts.world import World, running_servers, until
from tests.integration.conftest import Report
from tests.services.prometheus import DEPLOYED, ROOT, deployed_rules, hurried, promtool

DASHBOARD = ROOT / "deploy/grafana/dashboards/switchboard.json"


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([promtool(), *arguments], cwd=DEPLOYED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def parts_of_alerts() -> Iterator[str]:
    """What alerts compare, whatever comes of the comparison; `absent` finds something where there is nothing."""
    for rule in deployed_rules():
        for part in re.split(r"\bor\b", rule["expr"]):
            if "absent(" not in part:
                yield hurried(re.sub(r"(==|>) ", r"\1 bool ", part.strip()))


def dashboard_queries() -> Iterator[str]:
    """Every query of every panel, over the time that Grafana would take for the test's scrape interval."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "10s")


def found(samples: list[dict[str, Any]]) -> bool:
    """Whether there is a number among them: a quantile of nothing is none."""
    return any(sample["value"][1] != "NaN" for sample in samples)


@pytest.mark.timeout(240)
async def test_under_load_every_query_of_dashboards_and_alerts_finds_something(report: Report) -> None:
    queries = [*parts_of_alerts(), *dashboard_queries()]
    assert len(queries) > 50
    async with running_servers() as servers, World(servers, arguments=("--processes", "2")) as world:

        def empty() -> list[str]:
            return [query for query in queries if not found(world.prometheus.query(query))]

        await world.send("fail once", "fail", contexts=3)
        with suppress(AssertionError):
            await until(lambda: not empty(), "every query finds something")
        assert await asyncio.to_thread(empty) == []
    report(f"{len(queries)} queries of dashboards and alerts, all of which find something")
