"""What was seen of the alerts as a page of the documentation."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.alerts.causes import CAUSES


@dataclass(frozen=True, slots=True)
class Record:
    """What one cause brought."""

    cause: str
    measured: str
    """The day."""
    seconds: dict[str, float]
    """From the cause until each of its alerts fired."""


def page(records: Sequence[Record], rules: Sequence[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    return f"""# Alerts, each caused for real

Written by `make alerts-check`: real workers on a real RabbitMQ and Redis, watched by a real Prometheus with the rules
of `deploy/prometheus/alerts.yaml`, while users write all the time. No alert of a row fired before its cause. Prometheus
scrapes and evaluates every second here, and the rules' minutes are seconds, so 7 s are some 7 minutes in operation,
most of which is the time for which a condition must hold. What to do is in the [runbook](runbook.md).

| alert | severity | cause | fired after |
|---|---|---|---|
{chr(10).join(_lines(records, rules))}

Machine: {os.cpu_count()} cores ({platform.machine()}), shared by all of them. Seen on \
{", ".join(sorted({record.measured for record in records}))}.
"""


def _lines(records: Sequence[Record], rules: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for rule in rules:
        name, severity = rule["alert"], rule["labels"]["severity"]
        seen = [(record.cause, record.seconds[name]) for record in records if name in record.seconds]
        link = f"[{name}](runbook.md#{name.lower()})"
        lines += [f"| {link} | {severity} | {CAUSES[cause].what} | {seconds:.0f} s |" for cause, seconds in seen]
    return lines
