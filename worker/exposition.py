"""A worker's metrics in Prometheus' own terms, made when they are asked for and never before."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from interfaces.metrics import Histogram, Metric, Metrics


def registry_of(metrics: Metrics) -> CollectorRegistry:
    """A registry of its own with a worker's metrics and those of its process."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(metrics))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class WorkerCollector(Collector):
    """Reads a worker's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        """Everything, as it is now."""
        for metric, values in self._metrics.values():
            yield family(metric, values)


def family(metric: Metric, values: Mapping[tuple[str, ...], float | Histogram]) -> Family:
    """One metric with its samples."""
    made = _FAMILIES[metric.kind](metric.full_name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        if isinstance(value, Histogram):
            assert isinstance(made, HistogramMetricFamily)  # noqa: S101 - by its kind
            bounds = [*map(floatToGoString, value.bounds), "+Inf"]
            counts = list(accumulate(value.counts))
            made.add_metric(labels, list(zip(bounds, counts, strict=True)), value.total)
        else:
            assert not isinstance(made, HistogramMetricFamily)  # noqa: S101 - by its kind
            made.add_metric(labels, value)
    return made


_FAMILIES: Mapping[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
