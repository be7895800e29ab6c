"""Metrics: one list of names that everything follows, and buckets as Prometheus has them."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from interfaces.metrics import METRICS, WORKER_RESTARTS, Histogram, Metrics
from worker.exposition import WorkerCollector, registry_of


def exposed(metrics: Metrics) -> str:
    registry = CollectorRegistry()
    registry.register(WorkerCollector(metrics))
    return generate_latest(registry).decode()


def test_the_list_of_metrics_and_what_is_counted_are_the_same() -> None:
    assert [metric.name for metric in METRICS] == list(Metrics.__annotations__)
    assert len({metric.full_name for metric in METRICS}) == len(METRICS)


def test_names_and_texts_are_as_prometheus_wants_them() -> None:
    for metric in (*METRICS, WORKER_RESTARTS):
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert bool(metric.bounds) == (metric.kind == "histogram")
        assert list(metric.bounds) == sorted(metric.bounds)


def test_a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0, 1, 1.5, 4, 5):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 1, 1, 1], 11.5)


def test_everything_is_exposed_from_the_beginning_so_that_no_rate_misses_its_first_event() -> None:
    families = {family.name: family for family in text_string_to_metric_families(exposed(Metrics()))}
    for metric in METRICS:
        family = families[metric.full_name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        if metric.values:
            assert {sample.labels[metric.labels[0]] for sample in family.samples} == set(metric.values)


def test_buckets_are_cumulative_and_end_with_all() -> None:
    metrics = Metrics()
    for size in (1, 3, 3, 5000):
        metrics.batch_size["write"].observe(size)
    lines = exposed(metrics).splitlines()
    assert 'switchboard_batch_size_bucket{le="2.0",of="write"} 1.0' in lines
    assert 'switchboard_batch_size_bucket{le="4.0",of="write"} 3.0' in lines
    assert 'switchboard_batch_size_bucket{le="+Inf",of="write"} 4.0' in lines
    assert 'switchboard_batch_size_count{of="write"} 4.0' in lines
    assert 'switchboard_batch_size_sum{of="write"} 5007.0' in lines


def test_two_workers_of_one_process_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.turns_total["ok"] += 1
    one.stage_seconds["load"].observe(1)
    assert (other.turns_total["ok"], sum(other.stage_seconds["load"].counts)) == (0, 0)
    assert "process_resident_memory_bytes" in generate_latest(registry_of(one)).decode()
