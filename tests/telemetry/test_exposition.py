"""The text formats, held against the parsers and the writer of prometheus_client."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from ztunnel.telemetry.exposition import accepts, end, label_text, number, render
from ztunnel.telemetry.figures import Family, Kind

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.one_of(st.integers(0, 2**64), st.floats(0, allow_nan=False, allow_infinity=False))


def whole(families: list[Family], open_metrics: bool = False) -> str:
    return "".join(render(families, open_metrics)) + end(open_metrics)


def test_both_formats_name_a_counter_in_their_own_way():
    family = Family("a_total", "Say \\ \n", Kind.COUNTER, ("x",), [(('"',), 3)])
    assert whole([family]) == '# HELP a_total Say \\\\ \\n\n# TYPE a_total counter\na_total{x="\\""} 3\n'
    assert whole([family], True) == '# HELP a Say \\\\ \\n\n# TYPE a counter\na_total{x="\\""} 3\n# EOF\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.5"), (1e300, "1e+300"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")],
)
def test_numbers_are_written_so_that_prometheus_reads_them(value, text):
    assert number(value) == text


def test_no_labels_are_no_braces():
    assert label_text((), ()) == ""


@given(st.dictionaries(st.tuples(names, names), numbers, max_size=200))
def test_prometheus_reads_back_what_was_written(samples):
    families = [
        Family("events_total", "Events.", Kind.COUNTER, ("a", "b"), list(samples.items())),
        Family("level", "A level.", Kind.GAUGE, (), [((), 1)]),
    ]
    for read, open_metrics in ((parse_text, False), (parse_open_metrics, True)):
        parsed = {one.name: one for one in read(whole(families, open_metrics))}
        assert {(s.labels["a"], s.labels["b"]): s.value for s in parsed["events"].samples} == samples
        assert (parsed["events"].type, parsed["level"].type) == ("counter", "gauge")
        assert parsed["level"].samples[0].value == 1


@given(st.lists(st.tuples(names, names), unique=True, max_size=10))
def test_the_text_is_what_prometheus_client_writes(values):
    counter = CounterMetricFamily("events", "Events.", labels=["a", "b"])
    for pair in values:
        counter.add_metric(list(pair), 7.0)
    gauge = GaugeMetricFamily("level", "A level.", 2.5)

    class Both:
        def collect(self):
            return [counter, gauge]

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Both())
    families = [
        Family("events_total", "Events.", Kind.COUNTER, ("a", "b"), [(pair, 7.0) for pair in values]),
        Family("level", "A level.", Kind.GAUGE, (), [((), 2.5)]),
    ]
    assert whole(families) == generate_latest(registry).decode()


def test_the_text_comes_in_pieces():
    samples = [((str(n),), n) for n in range(1000)]
    pieces = list(render([Family("a_total", "A.", Kind.COUNTER, ("n",), samples)], False))
    assert max(map(len, pieces)) < 4096


@pytest.mark.parametrize(
    ("header", "name", "accepted"),
    [
        ("gzip", "gzip", True),
        ("deflate, GZIP;q=0.5", "gzip", True),
        ("gzip;q=0", "gzip", False),
        ("gzip; q=0.000", "gzip", False),
        ("identity", "gzip", False),
        ("", "gzip", False),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
            "application/openmetrics-text",
            True,
        ),
        ("*/*", "application/openmetrics-text", False),
    ],
)
def test_a_client_accepts_what_it_names_with_a_weight(header, name, accepted):
    assert accepts(header, name) is accepted
