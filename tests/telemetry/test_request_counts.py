"""Requests are counted by Istio's labels."""

from __future__ import annotations

from tests.builders import service, workload
from tests.telemetry.records import count
from ztunnel.model.connection import Security
from ztunnel.telemetry.labels import Reporter, tcp_labels
from ztunnel.telemetry.request_counts import BUCKETS, RequestCounts, RequestLabels, request_labels


def test_labels_are_istios_in_istios_order() -> None:
    assert RequestLabels._fields[:3] == ("reporter", "source_workload", "source_canonical_service")
    assert RequestLabels._fields[-5:] == (
        "request_protocol", "response_code", "grpc_response_status", "response_flags",
        "connection_security_policy",
    )  # fmt: skip
    tcp = tcp_labels(
        Reporter.WAYPOINT, workload("a"), workload("b"), service("web"), None, None, Security.MUTUAL_TLS
    )
    found = request_labels(tcp, "grpc")
    assert found.reporter == "waypoint"
    assert found.request_protocol == "grpc"
    assert found.source_workload == tcp.source_workload
    assert found.destination_service == tcp.destination_service
    assert found.connection_security_policy == "mutual_tls"


def test_a_value_is_in_the_first_bucket_that_it_is_not_above() -> None:
    counts, labels = RequestCounts(), RequestLabels("waypoint")
    for milliseconds, received, sent in ((0.5, 0, 1), (0.6, 10**9, 2)):
        count(counts, labels, milliseconds, received, sent)
    series = counts.series[labels]
    assert (series.count, series.sums) == (2, [1.1, 1e9, 3.0])
    assert series.counts[0][:2] == [1, 1]
    assert series.counts[1][0] == series.counts[1][len(BUCKETS)] == 1
    assert series.messages == [0, 0]


def test_what_is_beyond_the_limit_counts_for_one_that_names_nobody() -> None:
    counts = RequestCounts(1)
    for name in ("a", "b", "c"):
        labels = RequestLabels("waypoint", name, response_code="503")
        count(counts, labels, 1.0, 0, 0, messages=(1, 2))
    unknown = RequestLabels("waypoint", response_code="503")
    assert {labels: series.count for labels, series in counts.series.items()} == {
        RequestLabels("waypoint", "a", response_code="503"): 1,
        unknown: 2,
    }
    assert counts.series[unknown].messages == [2, 4]
