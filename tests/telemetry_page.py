"""The table of metrics in docs/telemetry.md, from the list in the code: `python -m tests.telemetry_page` writes it."""

from pathlib import Path
from typing import Final

from interfaces.metrics import METRICS, WORKER_RESTARTS, Metric

PAGE: Final = Path(__file__).parents[1] / "docs/telemetry.md"
BEGIN: Final = "<!-- metrics: written by tests/telemetry_page.py -->\n"
END: Final = "<!-- end of metrics -->\n"


def table() -> str:
    """Every metric."""
    rows = [_row(metric) for metric in METRICS]
    rows.append(_row(WORKER_RESTARTS).replace(" | - | ", " | - (of the supervisor alone) | "))
    return "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    if metric.values:
        labels += ": " + ", ".join(f"`{value}`" for value in metric.values)
    return f"| `{metric.full_name}` | {metric.kind} | {labels} | {metric.help} |\n"


def with_table(page: str) -> str:
    """The page with what the code says now."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
