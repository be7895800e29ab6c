"""Draws the dashboard's graphs over a minute of load with an outage in it: `make dashboard-plot`, docs/dashboard.svg.

The queries are those of the dashboard's file, asked of a real Prometheus that scrapes real workers; only Grafana is
missing. Redis is stopped for some seconds, so that the graphs show what an outage looks like.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interfaces.errors import SwitchboardError
from tests.alerts.world import World, running_servers

DOCS: Final = Path(__file__).parents[1] / "docs"
DASHBOARD: Final = Path(__file__).parents[1] / "deploy/grafana/dashboards/switchboard.json"
USERS: Final = 60
SECONDS: Final = 60.0
OUTAGE: Final = (25.0, 33.0)
COLUMNS: Final = 3
TEXTS: Final = ("hello",) * 30 + ("wait 0.1",) * 20 + ("fail once",)


async def user(world: World, number: int) -> None:
    """Somebody who writes again when the answer is there."""
    while True:
        with suppress(SwitchboardError):
            await world.client.ask(random.choice(TEXTS), f"visitor {number}", timeout=30)
        await asyncio.sleep(random.uniform(0.05, 0.2))


async def outage(world: World) -> None:
    """Redis is away from the one second to the other."""
    await asyncio.sleep(OUTAGE[0])
    await world.servers.redis.stop()
    await asyncio.sleep(OUTAGE[1] - OUTAGE[0])
    await world.servers.redis.start()


Series = list[tuple[str, list[dict[str, Any]]]]
"""What each legend stands for."""


async def measured() -> tuple[float, list[tuple[dict[str, Any], Series]]]:
    """When the minute began, and each panel that is a graph with its series."""
    async with running_servers() as servers, World(servers, arguments=("--processes", "2")) as world:
        began = time.time()
        tasks = [asyncio.create_task(user(world, number)) for number in range(USERS)]
        tasks.append(asyncio.create_task(outage(world)))
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return began, [(panel, list(_series(world, panel, began))) for panel in graphs()]


def graphs() -> Iterator[dict[str, Any]]:
    """The panels of the dashboard that are graphs."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return (panel for panel in panels if panel["type"] == "timeseries")


def _series(world: World, panel: dict[str, Any], began: float) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "5s")
        yield target["legendFormat"], world.prometheus.query_range(query, began, began + SECONDS, 1.0)


def legend(form: str, labels: Mapping[str, str]) -> str:
    """A legend as Grafana fills it in."""
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def draw(axes: Axes, panel: dict[str, Any], series: Series, began: float) -> None:
    """One panel."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    factor, name = {"s": (1000, " (ms)"), "percentunit": (100, " (%)"), "bytes": (2**-20, " (MiB)")}.get(unit, (1, ""))
    axes.axvspan(*OUTAGE, color="0.92")
    for form, found in series:
        for each in found:
            points = [(float(at) - began, float(value) * factor) for at, value in each["values"] if value != "NaN"]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=legend(form, each["metric"]))
    axes.set_title(panel["title"] + name, fontsize=8, loc="left")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, SECONDS)
    axes.tick_params(labelsize=7)
    if axes.lines:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def main() -> None:
    """Measure and draw."""
    mpl.rcParams["svg.hashsalt"] = "switchboard"
    began, found = asyncio.run(measured())
    rows = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.3 * rows), layout="constrained")
    cells = figure.subplots(rows, COLUMNS).flat
    for (panel, series), axes in zip(found, cells, strict=False):  # in this order no cell is taken and not drawn
        draw(axes, panel, series, began)
    for axes in cells:
        axes.set_axis_off()
    figure.savefig(DOCS / "dashboard.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
