"""The text formats, held against the parsers and the writer of prometheus_client."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ztunnel.telemetry.exposition import accepts, counter_head, label_text, render
from ztunnel.telemetry.figures import Family, Kind, metric
from ztunnel.telemetry.labels import TcpLabels
from ztunnel.telemetry.metrics import TcpMetrics, render_rows

names = st.text(max_size=20)
counts = st.integers(0, 2**53)


def library(families: list[Family], open_metrics: bool) -> str:
    return render(list(map(metric, families)), open_metrics).decode()


def test_no_labels_are_no_braces():
    assert label_text((), ()) == ""


@pytest.mark.parametrize("open_metrics", [False, True])
@given(st.text(), st.text(), st.integers(0, 2**60))
def test_a_sample_of_ours_is_what_the_library_writes(open_metrics, one, other, value):
    family = Family("a_total", "How many.", Kind.COUNTER, ("b", "a"), [((one, other), value)])
    text = (
        counter_head("a_total", "How many.", open_metrics) + "a_total" + label_text(("b", "a"), (one, other))
    )
    assert library([family], open_metrics).startswith(f"{text} ")


@pytest.mark.parametrize("open_metrics", [False, True])
@given(st.lists(st.tuples(names, names, counts, counts), max_size=100, unique_by=lambda it: it[:2]))
def test_the_families_of_many_labels_are_what_the_library_writes(open_metrics, drawn):
    metrics = TcpMetrics()
    for source, destination, up, down in drawn:
        labels = TcpLabels("source", source_workload=source, destination_workload=destination)
        live = metrics.opened(labels, SimpleNamespace(up=up, down=down))
        metrics.opened(labels, SimpleNamespace(up=down, down=up))
        metrics.closed(live)
    rows = list(metrics.rows(0.0))
    columns = (
        ("istio_tcp_connections_opened", "The total number of TCP connections opened", "opened"),
        ("istio_tcp_connections_closed", "The total number of TCP connections closed", "closed"),
        (
            "istio_tcp_received_bytes",
            "The size of total bytes received during request in case of a TCP connection",
            "received_bytes",
        ),
        (
            "istio_tcp_sent_bytes",
            "The size of total bytes sent during response in case of a TCP connection",
            "sent_bytes",
        ),
    )
    families = [
        Family(
            f"{name}_total",
            help_text,
            Kind.COUNTER,
            TcpLabels._fields,
            [(tuple(row.labels), getattr(row, field)) for row in rows],
        )
        for name, help_text, field in (columns if rows else ())
    ]
    end = "# EOF\n" if open_metrics else ""
    assert "".join(render_rows(rows, open_metrics)) + end == library(families, open_metrics)


@given(st.dictionaries(st.tuples(names, names), counts, max_size=200))
def test_prometheus_reads_back_what_was_written(samples):
    families = [
        Family("events_total", "Events \\ and\nmore.", Kind.COUNTER, ("a", "b"), list(samples.items())),
        Family("level", "A level.", Kind.GAUGE, (), [((), 0.5)]),
    ]
    for read, open_metrics in ((parse_text, False), (parse_open_metrics, True)):
        parsed = {one.name: one for one in read(library(families, open_metrics))}
        assert {(s.labels["a"], s.labels["b"]): s.value for s in parsed["events"].samples} == samples
        assert (parsed["events"].type, parsed["level"].type) == ("counter", "gauge")
        assert parsed["level"].samples[0].value == 0.5


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
