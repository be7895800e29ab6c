"""Writes the dashboards beside it: `python3 deploy/grafana/dashboards.py`. The table below is what is edited.

A row of panels is a question somebody has: is it well, how long does it take, what waits, what fails, what do the
workers do. Every query is run against real workers by `tests/integration/test_prometheus.py`, and must find something.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
REQUEST_QUEUES = r'queue=~".+\\.requests\\.g[0-9]+\\.[0-9]+"'


class Panel(NamedTuple):
    """One panel: its queries by legend."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    about: str = ""


def quantiles(metric: str, *shares: float) -> dict[str, str]:
    """The histogram's quantiles over all workers; `metric` may hold label matchers."""
    name, brace, matchers = metric.partition("{")
    rate = f"sum by (le) (rate({name}_bucket{brace}{matchers}[$__rate_interval]))"
    return {f"{share:.0%}": f"histogram_quantile({share}, {rate})" for share in shares}


def rate(metric: str, by: str = "") -> str:
    """Per second, over all workers."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


ROWS: dict[str, list[Panel]] = {
    "Is it well?": [
        Panel("Workers ready", "none", {"": "sum(switchboard_ready)"}, "stat"),
        Panel("Turns a second", "ops", {"": rate("switchboard_turns_total")}, "stat"),
        Panel("95 % of turns within", "s", quantiles('switchboard_stage_seconds{stage="turn"}', 0.95), "stat"),
        Panel("Dead letters in an hour", "none", {"": "sum(increase(switchboard_dead_letters_total[1h]))"}, "stat"),
        Panel("Servers reached", "percentunit", {"": "avg(switchboard_server_up)"}, "stat"),
        Panel("Shards", "none", {"": "max(switchboard_namespace_shards)"}, "stat"),
    ],
    "How many, how long?": [
        Panel("Turns a second, by outcome", "ops", {"{{outcome}}": rate("switchboard_turns_total", "outcome")}),
        Panel(
            "A turn, from its arrival to its acknowledgement",
            "s",
            quantiles('switchboard_stage_seconds{stage="turn"}', 0.5, 0.95, 0.99),
        ),
        Panel(
            "95 % of each stage within",
            "s",
            {
                "{{stage}}": "histogram_quantile(0.95, sum by (stage, le) "
                '(rate(switchboard_stage_seconds_bucket{stage!~"queue|turn"}[$__rate_interval])))'
            },
        ),
        Panel(
            "Contexts found in hand",
            "percentunit",
            {
                "of all loads": rate('switchboard_context_loads_total{from="cache"}')
                + " / "
                + rate("switchboard_context_loads_total")
            },
            about="Loads that read no turns from Redis, as the worker had them (SWITCHBOARD_CONTEXT_CACHE_BYTES).",
        ),
    ],
    "What waits?": [
        Panel(
            "Age of requests when they arrive",
            "s",
            quantiles('switchboard_stage_seconds{stage="queue"}', 0.5, 0.95),
            about="From the request's timestamp, which has whole seconds; only where its sender gave one.",
        ),
        Panel(
            "Ready in RabbitMQ, by queue",
            "none",
            {"{{queue}}": f"max by (queue) (rabbitmq_queue_messages_ready{{{REQUEST_QUEUES}}})"},
        ),
        Panel(
            "In workers",
            "none",
            {
                "requests": "sum(switchboard_in_flight_requests)",
                "contexts": "sum(switchboard_lanes)",
                "runs of the bot": "sum(switchboard_turns_running)",
            },
        ),
        Panel(
            "How full the fullest worker is",
            "percentunit",
            {
                "runs of the bot": "max(switchboard_turns_running / switchboard_turns_limit)",
                "bytes of requests": "max(switchboard_in_flight_bytes / switchboard_in_flight_bytes_limit)",
            },
        ),
    ],
    "What fails?": [
        Panel(
            "Dead letters in the hour before, by reason",
            "none",
            {"{{reason}}": "sum by (reason) (increase(switchboard_dead_letters_total[1h])) > 0"},
        ),
        Panel(
            "Done more than once",
            "ops",
            {
                "delivered again": rate('switchboard_requests_total{redelivered="true"}'),
                "answered before": rate('switchboard_turns_total{outcome="repeated"}'),
                "run again": rate("switchboard_retries_total"),
                "commits refused": rate("switchboard_fenced_commits_total"),
            },
        ),
        Panel(
            "Dead letters that wait for a decision",
            "none",
            {"{{queue}}": r'max by (queue) (rabbitmq_queue_messages_ready{queue=~".+\\.dead"})'},
        ),
        Panel("Runs left behind", "none", {"{{instance}} {{process}}": "switchboard_left_behind"}),
    ],
    "What do the workers do?": [
        Panel("Consumers", "none", {"{{state}}": "sum by (state) (switchboard_consumers)"}),
        Panel(
            "Changes in a minute",
            "none",
            {
                "hand-overs": f"60 * {rate('switchboard_hand_overs_total')}",
                "connections made anew": f"60 * {rate('switchboard_reconnects_total')}",
                "processes started again": f"60 * {rate('switchboard_worker_restarts_total')}",
            },
        ),
        Panel("Event loop: 99 % of wakings late by", "s", quantiles("switchboard_event_loop_lag_seconds", 0.99)),
        Panel(
            "What travels together, on average",
            "none",
            {
                "{{of}}": "sum by (of) (rate(switchboard_batch_size_sum[$__rate_interval])) "
                "/ sum by (of) (rate(switchboard_batch_size_count[$__rate_interval]))"
            },
        ),
        Panel(
            "Processor",
            "percentunit",
            {
                "{{instance}} {{process}}": "sum by (instance, process) "
                '(rate(process_cpu_seconds_total{job="switchboard"}[$__rate_interval]))'
            },
        ),
        Panel(
            "Memory",
            "bytes",
            {"{{instance}} {{process}}": 'process_resident_memory_bytes{job="switchboard"}'},
        ),
    ],
}


def _panels() -> Iterator[dict[str, Any]]:
    y = 0
    for row, panels in ROWS.items():
        yield {"type": "row", "title": row, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        y += 1
        height = 4 if panels[0].kind == "stat" else 8
        columns = len(panels) if len(panels) <= 4 or panels[0].kind == "stat" else 3
        for number, panel in enumerate(panels):
            down, across = divmod(number, columns)
            width = WIDTH // columns
            place = {"x": across * width, "y": y + down * height, "w": width, "h": height}
            yield {
                "type": panel.kind,
                "title": panel.title,
                "description": panel.about,
                "datasource": SOURCE,
                "gridPos": place,
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                    for index, (legend, query) in enumerate(panel.queries.items())
                ],
            }
        y += height * -(-len(panels) // columns)


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana reads it from a file."""
    return {
        "uid": "switchboard",
        "title": "Switchboard",
        "tags": ["switchboard"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(), start=1)],
    }


def text() -> str:
    """What stands in the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (DIRECTORY / "switchboard.json").write_text(text())
