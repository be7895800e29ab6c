"""The data of the availability measurements as a page of the documentation."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.availability.faults import MEASUREMENTS, Sample


@dataclass(frozen=True, slots=True)
class Record:
    """What one measurement found."""

    fault: str
    measured: str
    """The day."""
    versions: str
    repetitions: int
    turns: int
    busy: float
    """Share of the machine's processors that was in use meanwhile."""
    samples: Sequence[dict[str, Any]]


def summary(samples: Sequence[Sample]) -> str:
    """One line about the samples of one fault."""
    rows = dict.fromkeys(sample.row for sample in samples)
    worst = {row: max(sample.turns for sample in samples if sample.row == row) for row in rows}
    return ", ".join(f"{row} at most {seconds * 1000:.0f} ms" for row, seconds in worst.items())


def page(records: Sequence[Record]) -> str:
    """The page, in Markdown."""
    table = "\n".join(line for record in records for line in _lines(record))
    kills = [sample["first"] for record in records if record.fault == "kill" for sample in record.samples]
    standby = (
        f"From `kill -9` to the first turn of the standby: {_milliseconds(median(kills))} ms in the median, at most "
        f"{_milliseconds(max(kills))} ms, over {len(kills)} shards that lost their worker.\n"
        if kills
        else ""
    )
    turns = sum(record.turns for record in records)
    return f"""# How long a shard is without service

Written by `make availability`. A steady stream of requests goes to every shard by the clock; the bot answers at once.
For every shard that a fault hits, the longest time between the beginnings of two turns, and between two replies as
their receiver sees them, is one sample; nothing is subtracted. Milliseconds, median and worst.

| what happens | times | samples | every | turns: median | worst | replies: median | worst | processors busy |
|---|---|---|---|---|---|---|---|---|
{table}

{standby}
In all of this, {turns} turns, the books of the chaos suite were kept, and its checker found every request applied once,
in order, and answered.

Machine: {os.cpu_count()} cores ({platform.machine()}), shared by RabbitMQ, Redis, the workers and the stream;
{", ".join(dict.fromkeys(record.versions for record in records))}; Python {platform.python_version()}. Measured on \
{", ".join(dict.fromkeys(record.measured for record in records))}.

* **Every** is the stream's interval for each shard, in milliseconds: no pause can show shorter.
* **Hand-over**: one of two workers gets SIGTERM, then another one starts and takes its share over. Where a worker
  joins, a shard may change hands twice within the time looked at, and the newcomer's start takes processor time.
* **`kill -9`**: the broker promotes the standby when the kernel closes the dead worker's connection.
* **SIGSTOP**: no connection is closed, so the time is what the broker's heartbeat takes: RabbitMQ gives a client up
  that has been silent for two to three times the heartbeat. It is 10 s where the URL does not say otherwise, and 2 s
  here (`amqp://...?heartbeat=2`). A shorter one notices sooner, and also takes a worker that is merely slow for dead.
* **Loss of a RabbitMQ node**: SIGKILL of the node that leads most shards. The other two elect a leader; workers and
  publishers whose connection was to the lost node connect to another one of `SWITCHBOARD_AMQP_URL`.
* **Fail-over of Redis**: SIGKILL of the primary. Sentinels declare it down after a second and promote the replica;
  turns wait, and nothing is acknowledged meanwhile.
"""


def _lines(record: Record) -> list[str]:
    measurement = MEASUREMENTS[record.fault]
    lines = []
    for row, what in measurement.rows.items():
        samples = [sample for sample in record.samples if sample["row"] == row]
        if samples:
            cells = [what, record.repetitions, len(samples), f"{measurement.every * 1000:.0f}"]
            for of in ("turns", "replies"):
                seconds = [sample[of] for sample in samples]
                cells += [_milliseconds(median(seconds)), _milliseconds(max(seconds))]
            lines.append("| " + " | ".join(map(str, [*cells, f"{record.busy:.0%}"])) + " |")
    return lines


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
