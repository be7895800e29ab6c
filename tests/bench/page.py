"""docs/performance.md, its data and its plots, from what `tests.bench` has measured."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from tests.bench import plots
from tests.bench.contest import BARE, OTHER_PYTHON, OURS
from tests.bench.results import MOST_BY_OTHERS, Outcome, Performance, Spread, Step, Trips, write

DOCS: Final = Path(__file__).parents[2] / "docs"
DATA: Final = DOCS / "performance.json"
LIBRARIES: Final = ("aio-pika", "aiormq", "redis", "hiredis", "uvloop", "pydantic")
FRAMEWORKS: Final = (
    "chatsky",
    "faststream",
    "taskiq",
    "taskiq-aio-pika",
    "dramatiq",
    "pika",
    "celery",
    "py-amqp",
    "amqp",
)
UNITS: Final = {
    "dialog": "turns before",
    "contexts": "contexts in Redis",
    "payload": "bytes of text",
    "batch_size": "`SWITCHBOARD_BATCH_SIZE`",
    "shards": "shards",
    "prefetch": "`SWITCHBOARD_PREFETCH`",
}
TITLES: Final = {
    "steady": "Steady traffic",
    "bursts": "Several requests of a context in a row",
    "waiting": "Handlers that wait",
}
COUNTED_FAULTS: Final = ("lost_updates", "out_of_order", "missing", "repeated")
NAMED: Final = {
    "throughput": "performance-throughput.svg",
    "latency": "performance-latency.svg",
    "growth": "performance-growth.svg",
}


def machine(servers: Sequence[str]) -> dict[str, str]:
    """What the figures were measured on."""
    models = [line.partition(":")[2].strip() for line in _processors() if line.startswith("model name")]
    elsewhere = [str(path) for path in (Path(OTHER_PYTHON).parents[1] / "lib").glob("python*/site-packages")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "python": f"{platform.python_version()} ({platform.python_build()[1]}, {platform.python_compiler()})",
        "servers": ", ".join(servers),
        "libraries": _versions(LIBRARIES, None),
        "frameworks": _versions(FRAMEWORKS, elsewhere),
    }


def _processors() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _versions(names: Sequence[str], path: list[str] | None) -> str:
    found = distributions() if path is None else distributions(path=path)
    installed = {distribution.name.lower().replace("_", "-"): distribution.version for distribution in found}
    return ", ".join(f"{name} {installed[name]}" for name in names if name in installed)


def _range(spread: Spread) -> str:
    return f"{spread.least:,.0f} - {spread.most:,.0f}"


def _faults(each: Outcome) -> str:
    return " | ".join(f"{each.total(fault):,}" for fault in COUNTED_FAULTS)


def contest_rows(outcomes: Sequence[Outcome]) -> str:
    """Contenders by their rate, each beside the bare loop."""
    bare = next((each.rate.median for each in outcomes if each.name == BARE and each.runs), None)
    rows = []
    for each in sorted(outcomes, key=lambda each: -each.rate.median if each.runs else 0.0):
        if not each.runs:
            rows.append(f"| {each.name} | - | - | - | - | - | - | - | - | - | {each.thrown_out} |")
            continue
        share = f"{each.rate.median / bare:.1%}" if bare else "-"
        rows.append(
            f"| {each.name} | {each.rate.median:,.0f} | {_range(each.rate)} | {share} | {each.cpu.median:,.0f} | "
            f"{each.servers_cpu.median:,.0f} | {_faults(each)} | {each.thrown_out} |"
        )
    return "\n".join(rows)


def waiting_rows(outcomes: Sequence[Outcome]) -> str:
    """Contenders by their rate, each beside what its own concurrency allows."""
    rows = []
    for each in sorted(outcomes, key=lambda each: -each.rate.median if each.runs else 0.0):
        if not each.runs:
            rows.append(
                f"| {each.name} | {each.concurrency:,} | - | - | - | - | - | - | - | - | - | {each.thrown_out} |"
            )
            continue
        rows.append(
            f"| {each.name} | {each.concurrency:,} | {each.ceiling:,.0f} | {each.rate.median:,.0f} | "
            f"{_range(each.rate)} | {each.rate.median / each.ceiling:.0%} | {each.cpu.median:,.0f} | {_faults(each)} | "
            f"{each.thrown_out} |"
        )
    return "\n".join(rows)


def _sizes(outcomes: Sequence[Outcome]) -> str:
    most = max(each.work.requests for each in outcomes)
    fewer = [f"{each.name} {each.work.requests:,}" for each in outcomes if each.work.requests < most]
    return f"{most:,} requests a run" + (f" ({', '.join(fewer)})" if fewer else "")


def _failures(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{each.name} did not get through all rounds: {each.failure}" for each in outcomes if each.failure]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def contest_section(kind: str, outcomes: Sequence[Outcome]) -> str:
    """One kind of work."""
    work = max((each.work for each in outcomes), key=lambda work: work.requests)
    rounds = max(len(each.runs) for each in outcomes)
    order = f"{work.in_a_row} in a row" if work.in_a_row > 1 else "far from one another"
    of_a_context = f"{work.requests // work.contexts} for each context, {order}"
    text = f"{_sizes(outcomes)}, {of_a_context}; {rounds} round(s).\n{_failures(outcomes)}"
    faults = "lost updates | out of order | missing | repeated | thrown out"
    if work.wait:
        return f"""## {TITLES[kind]}

Every handler waits {work.wait * 1000:.0f} ms, as one does that asks a service. *Ceiling* is what the handlers that a
contender runs at a time allow: their number by the time they wait. The bare loop has no handler. RabbitMQ's schedulers
are not bound to cores, as in `deploy/compose.yaml`: bound ones, as they are by default and were when the other tables
of this page were measured, kept the worker from its core for an eighth of its time.
{text}
| contender | handlers | ceiling | replies/s, median | range | of ceiling | CPU us | {faults} |
|{"---|" * 12}
{waiting_rows(outcomes)}
"""
    return f"""## {TITLES[kind]}

{text}
| contender | replies/s, median | range | of the bare loop | CPU us | servers' CPU us | {faults} |
|{"---|" * 11}
{contest_rows(outcomes)}
"""


def latency_rows(rounds: Sequence[Trips]) -> str:
    """Medians and 99th percentiles of both ways, and how many times the second's the first's are."""
    rows, ours, other = [], OURS, next(way for way in rounds[0].ways if way != OURS)
    for way in (ours, other):
        median, slow = (Spread.of([found(each, way) for each in rounds]) for found in (Trips.median, Trips.slow))
        cells = [f"{each.median:.2f} | {each.least:.2f} - {each.most:.2f}" for each in (median, slow)]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    medians, slows = (
        Spread.of([found(each, ours) / found(each, other) for each in rounds]) for found in (Trips.median, Trips.slow)
    )
    cells = [f"{each.median:.2f} | {each.least:.2f} - {each.most:.2f}" for each in (medians, slows)]
    return "\n".join([*rows, f"| times | {' | '.join(cells)} |"])


def latency_section(rounds: Sequence[Trips], thrown_out: int) -> str:
    """Round trips."""
    count = sum(len(each.ways[OURS]) for each in rounds)
    return f"""## Round trips at low load

20 requests a second to each, one here, one there, from the same channel; replies by direct reply-to.
{count:,} round trips each in {len(rounds)} round(s), {thrown_out} thrown out. The other is aio-pika on one quorum
queue, with a GET and a SET in Redis before its reply: less cannot keep a dialog. Milliseconds, medians of rounds and
their range; *times* is the ratio within a round.

| way | median | range | 99th percentile | range |
|---|---|---|---|---|
{latency_rows(rounds)}

![share of round trips against time]({NAMED["latency"]})
"""


def growth_rows(steps: Sequence[Step]) -> str:
    """Every point beside the first of its series."""
    rows = []
    firsts: dict[str, Outcome] = {}
    for step in steps:
        each = step.outcome
        if not each.runs:
            rows.append(f"| {UNITS[step.series]} | {step.value:,} | 0 | - | - | - | - | - | - | {each.thrown_out} |")
            continue
        first = firsts.setdefault(step.series, each)
        rows.append(
            f"| {UNITS[step.series]} | {step.value:,} | {len(each.runs)} | {each.rate.median:,.0f} | "
            f"{_range(each.rate)} | {each.rate.median / first.rate.median:.2f} | {each.cpu.median:,.0f} | "
            f"{each.cpu.median / first.cpu.median:.2f} | {each.servers_cpu.median:,.0f} | {each.thrown_out} |"
        )
    return "\n".join(rows)


def memory_rows(steps: Sequence[Step]) -> str:
    """Bytes of a context, and of a turn more than the point before had."""
    rows = []
    before: Step | None = None
    for step in sorted((step for step in steps if step.memory), key=lambda step: step.turns):
        added = (step.memory - before.memory) / (step.turns - before.turns) if before else step.memory / step.turns
        rows.append(f"| {step.turns:,} | {step.memory:,.0f} | {added:,.0f} |")
        before = step
    return "\n".join(rows)


def growth_section(steps: Sequence[Step]) -> str:
    """All series."""
    memory = memory_rows(steps)
    table = f"""
What a context takes in Redis (`MEMORY USAGE`, all of it sampled), the replies kept for repeated requests included;
*a turn* is what each turn more than in the row above adds.

| turns | bytes of a context | bytes a turn |
|---|---|---|
{memory}
"""
    return f"""## What growth costs

Switchboard alone, one thing larger at a time, the points of a series taking turns in as many rounds as the table says.
*Times* is against the first point of the series. Series may be of different hours, in which a shared machine is not
equally fast: figures of one say nothing beside those of another.

| what | value | rounds | turns/s, median | range | times | CPU us a turn | times | servers' CPU us | thrown out |
|---|---|---|---|---|---|---|---|---|---|
{growth_rows(steps)}

![rate and processor time against what grows]({NAMED["growth"]})
{table if memory else ""}"""


def head(found: Performance) -> str:
    """What holds for all of the page."""
    about = found.machine
    frameworks = f" The others run on {about['frameworks']}." if about["frameworks"] else ""
    return f"""# Performance

Written by `make bench`. Every contender is one process and does the same work: load the context, add the turn, count
up, save, publish the reply into a quorum queue with a confirm, acknowledge. Requests wait in quorum queues, which a
contender gets once it has connected and is idle: from that moment the clock runs, to the last reply. (taskiq, Dramatiq
and Celery read only queues of their own: their clocks run from the first tenth of the replies.) Contenders take turns
on one RabbitMQ and one Redis, which run on the same machine as they do: what counts is how figures compare, and what
processor time a reply costs, more than its rate. The bare loop keeps no state at all; it is what aio-pika gives.
Switchboard's worker runs on uvloop (extra `fast`; part of the image), the others on asyncio's own event loop.

*CPU us* are microseconds of processor time for each reply, of the contender's processes, and of RabbitMQ and Redis.
Replies carry the count of turns that their handler saw: *lost updates* are turns that a later one did not see, *out of
order* are replies before that of an earlier request of their context, both in all rounds together. A run in which
somebody else used more than {MOST_BY_OTHERS:.0%} of the processors is *thrown out* and made again.

Machine: {about["processor"]}, {about["cores"]} cores, Python {about["python"]}, {about["servers"]};
{about["libraries"]}.{frameworks}
"""


def page(found: Performance) -> str:
    """The documentation's page."""
    sections = [head(found)]
    for kind in (kind for kind in TITLES if kind in found.contests):
        sections.append(contest_section(kind, found.contests[kind]))
        if kind == "steady":
            sections.append(f"![replies a second by contender]({NAMED['throughput']})\n")
    if found.latency:
        sections.append(latency_section(found.latency, found.latency_thrown_out))
    if found.growth:
        sections.append(growth_section(found.growth))
    return "\n".join(sections)


def publish(found: Performance, docs: Path = DOCS) -> None:
    """Write the page, the plots and the data."""
    write(found, docs / DATA.name)
    (docs / "performance.md").write_text(page(found))
    if "steady" in found.contests:
        plots.throughput(found.contests["steady"], docs / NAMED["throughput"])
    if found.latency:
        plots.latency(found.latency, docs / NAMED["latency"])
    if found.growth:
        plots.growth(found.growth, docs / NAMED["growth"])
