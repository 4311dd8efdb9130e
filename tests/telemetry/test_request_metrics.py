"""Metrics of requests: what prometheus_client's own counters and histograms would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tests.telemetry.records import count
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.request_counts import BUCKETS, Edited, RequestLabels
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
        count(metrics.counts, labels, *values)
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
        count(metrics.counts, RequestLabels("waypoint", f"w{number}", response_code="200"), 1.0, 0, 0)
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
    count(metrics.counts, RequestLabels("waypoint"), 0.4, 0, 0)
    assert {family.name for family in figures.others()} == {
        "istio_requests", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"
    }  # fmt: skip


def test_only_calls_of_grpc_have_messages() -> None:
    registry, metrics = CollectorRegistry(), RequestMetrics()
    registry.register(metrics)
    count(metrics.counts, RequestLabels(), 1.0, 2, 3)
    assert b"messages" not in generate_latest(registry)
    labels = RequestLabels(request_protocol="grpc")
    count(metrics.counts, labels, 1.0, 2, 3, messages=(4, 5))
    count(metrics.counts, labels, 1.0, 2, 3, messages=(1, 1))
    for name, value in (("istio_request_messages_total", 5), ("istio_response_messages_total", 6)):
        assert registry.get_sample_value(name, labels._asdict()) == value
        assert registry.get_sample_value(name, RequestLabels()._asdict()) is None


VALUES = (1.0, 2.0, 3.0)


def names_of(metrics: RequestMetrics) -> dict[str, set[tuple[str, ...]]]:
    """The names of labels of each family; one set where it is consistent."""
    return {
        family.name: {tuple(name for name in sample.labels if name != "le") for sample in family.samples}
        for family in metrics.collect()
    }


def test_labels_of_an_operators_making_are_the_same_in_all_of_a_family() -> None:
    registry, metrics = CollectorRegistry(), RequestMetrics()
    registry.register(metrics)
    usual = RequestLabels("waypoint", source_app="web", response_code="200")
    count(metrics.counts, usual, 1.0, 2, 3)
    changed = Edited(usual._replace(source_app=""), (("request_host", "orders"), ("x", 'a"b')))
    metrics.counts.count_edited(changed, VALUES, None)
    metrics.counts.count_edited(changed, VALUES, None)
    assert {len(each) for each in names_of(metrics).values()} == {1}
    value = registry.get_sample_value
    both = {**usual._asdict(), "grpc_response_status": "", "request_host": "", "x": ""}
    both.pop("grpc_response_status")  # of no series of the family
    assert value("istio_requests_total", both) == 1
    assert (
        value("istio_requests_total", {**both, "source_app": "", "request_host": "orders", "x": 'a"b'}) == 2
    )
    assert b'request_host="orders"' in generate_latest(registry)
    assert b'x="a\\"b"' in generate_latest(registry)


def test_a_label_that_no_series_has_is_left_out_and_so_is_what_was_taken_away() -> None:
    metrics = RequestMetrics()
    labels = RequestLabels("waypoint", source_app="", destination_app="")
    metrics.counts.count_edited(Edited(labels, families=0b0001), VALUES, None)
    metrics.counts.count_edited(Edited(labels._replace(destination_app="a"), families=0b0110), VALUES, None)
    found = names_of(metrics)
    assert set(found) == {"istio_requests", "istio_request_duration_milliseconds", "istio_request_bytes"}
    (counted,), (sizes,) = found["istio_requests"], found["istio_request_bytes"]
    assert not {"source_app", "destination_app"} & set(counted)
    assert "destination_app" in sizes
    assert "source_app" not in sizes


def test_messages_of_grpc_count_under_changed_labels_too() -> None:
    metrics = RequestMetrics()
    labels = RequestLabels("waypoint", request_protocol="")
    metrics.counts.count_edited(Edited(labels, grpc=True), VALUES, (4, 5))
    values = {
        family.name: family.samples[0].value for family in metrics.collect() if "messages" in family.name
    }
    assert values == {"istio_request_messages": 4, "istio_response_messages": 5}


def test_labels_of_an_operators_making_are_no_more_than_the_others() -> None:
    metrics = RequestMetrics(3)
    count(metrics.counts, RequestLabels("waypoint", "w"), 1.0, 0, 0)
    for number in range(10):
        edited = Edited(RequestLabels("waypoint", f"w{number}"), (("path", f"/{number}"),))
        metrics.counts.count_edited(edited, VALUES, None)
    (family,) = [family for family in metrics.collect() if family.name == "istio_requests"]
    found = [
        (sample.labels["source_workload"], sample.labels["path"], sample.value) for sample in family.samples
    ]
    assert found == [("w", "", 1), ("w0", "/0", 1), ("w1", "/1", 1), ("unknown", "", 8)]
