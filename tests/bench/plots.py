"""The plots of docs/performance.md: how they look says nothing that their page's tables do not."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.contest import OURS
from tests.bench.results import Outcome, Step, Trips

OWN: Final = "#1f6f8b"
OTHER: Final = "#999999"
PANELS: Final = {
    "dialog": "turns the dialog has had",
    "contexts": "contexts in Redis",
    "payload": "bytes of a request's text",
    "batch_size": "batch size",
    "shards": "shards",
    "prefetch": "prefetch of a shard",
}
COLUMNS: Final = 3


def short(value: int) -> str:
    """A number as an axis has room for it: 8, 1k, 10 Ki, 1 M."""
    if value >= 1024 and value % 1024 == 0:
        return f"{value // 1024}Ki" if value < 1024 * 1000 else f"{value / 1024**2:.0f}Mi"
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return str(value)


def throughput(outcomes: Sequence[Outcome], path: Path) -> None:
    """A bar for each contender, the fastest on top, every run a dot."""
    shown = sorted((each for each in outcomes if each.runs), key=lambda each: each.rate.median)
    figure, axes = pyplot.subplots(figsize=(7.2, 0.6 + 0.42 * len(shown)), layout="constrained")
    colours = [OWN if each.name.startswith(OURS) else OTHER for each in shown]
    names = [each.name for each in shown]
    axes.barh(names, [each.rate.median for each in shown], color=colours, height=0.62)
    most = max(each.rate.most for each in shown)
    for row, each in enumerate(shown):
        axes.scatter([run.rate for run in each.runs], [row] * len(each.runs), s=7, color="black", linewidths=0)
        axes.text(each.rate.most + most * 0.015, row, f"{each.rate.median:,.0f}", va="center", fontsize=9)
    axes.set_xlim(0, most * 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("replies a second, one process; dots are runs")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _save(figure, path)


def latency(rounds: Sequence[Trips], path: Path) -> None:
    """Share of round trips that took no longer, both ways."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    longest = 0.0
    for way in rounds[0].ways:
        trips = sorted(trip for each in rounds for trip in each.ways[way])
        colour = OWN if way == OURS else OTHER
        shares = [(place + 1) / len(trips) for place in range(len(trips))]
        middle = statistics.median(trips)
        axes.step(trips, shares, where="post", color=colour, linewidth=1.8, label=f"{way} (median {middle:.1f} ms)")
        longest = max(longest, statistics.quantiles(trips, n=200, method="inclusive")[-1])
    axes.axhline(0.5, color="#dddddd", linewidth=0.8, zorder=0)
    axes.axhline(0.99, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.99], ["0 %", "25 %", "50 %", "75 %", "99 %"])
    axes.set_xlim(0, longest * 1.15)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("milliseconds from request to reply")
    axes.set_ylabel("round trips")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path)


def growth(steps: Sequence[Step], path: Path) -> None:
    """A panel for each series: rate and processor time as multiples of those at its first point."""
    series = [name for name in PANELS if any(step.series == name and step.outcome.runs for step in steps)]
    rows = -(-len(series) // COLUMNS)
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=(9.6, 0.5 + 2.7 * rows), layout="constrained", squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axes, name in zip(panels, series, strict=False):
        _panel(axes, [step for step in steps if step.series == name and step.outcome.runs])
        axes.set_title(PANELS[name], fontsize=10)
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supylabel("times the first point", fontsize=10)
    _save(figure, path)


def _panel(axes: Axes, steps: Sequence[Step]) -> None:
    places = range(len(steps))
    highest = 1.0
    for figure, colour, label in (("rate", OWN, "replies a second"), ("cpu", OTHER, "processor time of a turn")):
        first = getattr(steps[0].outcome, figure).median
        medians = [getattr(step.outcome, figure).median / first for step in steps]
        runs = [[getattr(run, figure) / first for run in step.outcome.runs] for step in steps]
        axes.plot(places, medians, color=colour, label=label, linewidth=1.6)
        for place, values in zip(places, runs, strict=True):
            axes.scatter([place] * len(values), values, color=colour, s=9, linewidths=0, alpha=0.7)
        highest = max(highest, *(max(values) for values in runs))
    axes.axhline(1, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_xticks(places, [short(step.value) for step in steps])
    axes.set_ylim(0, highest * 1.15)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
