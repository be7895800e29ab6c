"""What one worker counts and times: plain numbers, which the code bumps where things happen.

Written by the event loop's thread alone and read by any other, so nothing here takes a lock, and no label is looked up
by more than one dictionary: all of it together must cost a turn a few microseconds (docs/decisions/0024). `METRICS` is
the one list of names; what is exposed, docs/telemetry.md and `Metrics` itself follow it. No label ever holds what a
stranger chose: its values stand here, or are the operator's own.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from interfaces.errors import Reason

PREFIX: Final = "switchboard_"

SECONDS: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""From what an idle Redis takes to the longest that a turn may."""

MEMBERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, each up to its bound and above the one before; the last has all that is above every bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without the prefix, which is also an attribute of `Metrics`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """All that its label may be; of several labels, or where they are none of ours, not listed."""
    bounds: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is exposed."""
        return PREFIX + self.name

    def initial(self) -> Any:
        """What nothing has happened to: a number, a histogram, or one for each value of the label."""
        if not self.labels:
            return self._zero()
        return {value: self._zero() for value in self.values}

    def _zero(self) -> Any:
        return Histogram(self.bounds) if self.kind == "histogram" else 0


_SERVERS: Final = ("rabbitmq", "redis")

METRICS: Final = (
    Metric("info", "gauge", "What runs; always 1.", ("version", "namespace")),
    Metric("ready", "gauge", "Whether /readyz says ready."),
    Metric("server_up", "gauge", "Whether the server could be reached when it was tried last.", ("server",), _SERVERS),
    Metric("consumer_up", "gauge", "Whether every request queue that this worker wants has its open consumer."),
    Metric(
        "consumers",
        "gauge",
        "Request queues with an open consumer of this worker: active have delivered something, waiting have not.",
        ("state",),
        ("active", "waiting"),
    ),
    Metric("namespace_shards", "gauge", "Shards of the namespace, as this worker knows them."),
    Metric(
        "turns_total",
        "counter",
        "Turns that ended: committed and answered; committed before, their reply published again; dead letters; given "
        "up, as another worker has the context.",
        ("outcome",),
        ("ok", "repeated", "dead", "abandoned"),
    ),
    Metric(
        "stage_seconds",
        "histogram",
        "Seconds of a turn's stages. queue: from the request's timestamp, in whole seconds, to its arrival; lane: "
        "until its turn begins; load; place: until the bot may run; run (the bot); commit; publish: until the reply is "
        "confirmed; settle: until the acknowledgement is handed over; turn: from the arrival to there.",
        ("stage",),
        ("queue", "lane", "load", "place", "run", "commit", "publish", "settle", "turn"),
        SECONDS,
    ),
    Metric(
        "batch_size",
        "histogram",
        "What travels together: requests of a poll, loads and commits of a round trip to Redis, messages of a write to "
        "RabbitMQ.",
        ("of",),
        ("poll", "load", "commit", "write"),
        MEMBERS,
    ),
    Metric("requests_total", "counter", "Requests taken from RabbitMQ.", ("redelivered",), ("false", "true")),
    Metric(
        "context_loads_total",
        "counter",
        "Contexts loaded for a turn: read from Redis, or in hand since the last one (SWITCHBOARD_CONTEXT_CACHE_BYTES).",
        ("from",),
        ("redis", "cache"),
    ),
    Metric("retries_total", "counter", "Runs of the bot after one that failed."),
    Metric(
        "dead_letters_total",
        "counter",
        "Dead letters published by this worker.",
        ("reason",),
        tuple(reason.value for reason in Reason),
    ),
    Metric("hand_overs_total", "counter", "Request queues handed over to another worker."),
    Metric(
        "reconnects_total",
        "counter",
        "Connections to RabbitMQ made anew after a loss, of two; times that Redis answered again after it had not.",
        ("server",),
        _SERVERS,
    ),
    Metric("fenced_commits_total", "counter", "Commits refused, as the context had moved since it was loaded."),
    Metric("lanes", "gauge", "Contexts that have something to do here."),
    Metric("turns_running", "gauge", "Runs of the bot that go on now."),
    Metric("turns_limit", "gauge", "How many may: SWITCHBOARD_CONCURRENCY."),
    Metric("in_flight_requests", "gauge", "Requests taken and not settled."),
    Metric("in_flight_bytes", "gauge", "Their bytes, 2 KiB for each included."),
    Metric("in_flight_bytes_limit", "gauge", "How many there may be: SWITCHBOARD_IN_FLIGHT_BYTES."),
    Metric("left_behind", "gauge", "Runs of the bot that go on although their turns are over."),
    Metric(
        "event_loop_lag_seconds",
        "histogram",
        "How late the event loop wakes, looked at every 0.25 s.",
        bounds=SECONDS,
    ),
)

WORKER_RESTARTS: Final = Metric(
    "worker_restarts_total", "counter", "Worker processes that the supervisor has started again."
)
"""Not a worker's own."""


class Metrics:
    """The metrics of one worker."""

    info: dict[tuple[str, str], int]
    ready: int
    server_up: dict[str, int]
    consumer_up: int
    consumers: dict[str, int]
    namespace_shards: int
    turns_total: dict[str, int]
    stage_seconds: dict[str, Histogram]
    batch_size: dict[str, Histogram]
    requests_total: dict[str, int]
    context_loads_total: dict[str, int]
    retries_total: int
    dead_letters_total: dict[str, int]
    hand_overs_total: int
    reconnects_total: dict[str, int]
    fenced_commits_total: int
    lanes: int
    turns_running: int
    turns_limit: int
    in_flight_requests: int
    in_flight_bytes: int
    in_flight_bytes_limit: int
    left_behind: int
    event_loop_lag_seconds: Histogram

    def __init__(self) -> None:
        for metric in METRICS:
            setattr(self, metric.name, metric.initial())

    def values(self) -> Iterator[tuple[Metric, Mapping[tuple[str, ...], float | Histogram]]]:
        """Each metric with what it is now, by the values of its labels. From any thread."""
        for metric in METRICS:
            value = getattr(self, metric.name)
            if not metric.labels:
                yield metric, {(): value}
            else:
                yield metric, {key if isinstance(key, tuple) else (key,): each for key, each in value.items()}
