"""Metrics of requests: what prometheus_client's own counters and histograms would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.request_counts import BUCKETS, RequestLabels
from ztunnel.telemetry.request_metrics import RequestMetrics

REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["200", "503"]), st.floats(0, 1e7), st.integers(0, 1 << 24), st.integers(0, 1 << 24)
    ),
    max_size=20,
)


@given(REQUESTS)
def test_it_counts_as_the_library_does(requests) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    metrics = RequestMetrics()
    ours.register(metrics)
    names = RequestLabels._fields
    total = Counter("istio_requests", "The total number of requests", names, registry=theirs)
    histograms = [
        Histogram(name, text, names, buckets=BUCKETS, registry=theirs)
        for name, text in (
            ("istio_request_duration_milliseconds", "How long requests took"),
            ("istio_request_bytes", "Sizes of requests' bodies"),
            ("istio_response_bytes", "Sizes of responses' bodies"),
        )
    ]
    for code, *values in requests:
        labels = RequestLabels("waypoint", response_code=code)
        metrics.counts.count(labels, *values)
        total.labels(*labels).inc()
        for histogram, value in zip(histograms, values, strict=True):
            histogram.labels(*labels).observe(value)

    def samples(registry: CollectorRegistry) -> dict:
        return {
            (
                sample.name,
                tuple(sorted({**sample.labels, "le": _bound(sample.labels.get("le"))}.items())),
            ): sample.value
            for family in registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert samples(ours) == samples(theirs)
    assert generate_latest(ours) is not None


def _bound(text: str | None) -> str:
    return "" if text is None else str(float(text))


def test_beyond_the_limit_all_names_are_unknown() -> None:
    metrics = RequestMetrics(2)
    for number in range(5):
        metrics.counts.count(RequestLabels("waypoint", f"w{number}", response_code="200"), 1.0, 0, 0)
    found = [
        (sample.labels["source_workload"], sample.value)
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == "istio_requests_total"
    ]
    assert found == [("w0", 1), ("w1", 1), ("unknown", 3)]


def test_it_stands_in_the_register_with_the_others() -> None:
    figures, metrics = Figures(), RequestMetrics()
    figures.register(metrics)
    assert list(metrics.collect()) == []
    metrics.counts.count(RequestLabels("waypoint"), 0.4, 0, 0)
    assert {family.name for family in figures.others()} == {
        "istio_requests", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"
    }  # fmt: skip


def test_only_calls_of_grpc_have_messages() -> None:
    registry, metrics = CollectorRegistry(), RequestMetrics()
    registry.register(metrics)
    metrics.counts.count(RequestLabels(), 1.0, 2, 3)
    assert b"messages" not in generate_latest(registry)
    labels = RequestLabels(request_protocol="grpc")
    metrics.counts.count(labels, 1.0, 2, 3, (4, 5))
    metrics.counts.count(labels, 1.0, 2, 3, (1, 1))
    for name, value in (("istio_request_messages_total", 5), ("istio_response_messages_total", 6)):
        assert registry.get_sample_value(name, labels._asdict()) == value
        assert registry.get_sample_value(name, RequestLabels()._asdict()) is None
