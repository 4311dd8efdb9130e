from __future__ import annotations

from tests.l7.telemetry.test_attribute import EMPTY, RECORD, SUBJECT
from ztunnel.l7.telemetry.attribute import Subject
from ztunnel.l7.telemetry.edits import edits_of, tcp_edits_of
from ztunnel.l7.telemetry.merging import MetricPlan
from ztunnel.model.telemetry import METRICS, TCP_METRICS
from ztunnel.telemetry.labels import TcpLabels
from ztunnel.telemetry.request_counts import FAMILIES, Edited

ALL = (1 << FAMILIES) - 1


def every(plan: MetricPlan) -> dict[str, MetricPlan]:
    return dict.fromkeys(METRICS, plan)


def test_without_a_difference_there_is_nothing_to_do() -> None:
    assert edits_of({}) is None
    assert edits_of({"REQUEST_COUNT": MetricPlan()}) is None
    assert edits_of({"TCP_SENT_BYTES": MetricPlan(True)}) is None


def test_labels_are_taken_away_replaced_and_added_in_one_set_for_all() -> None:
    tags = {
        "source_workload": None,
        "destination_app": "request.host",
        "request_host": "request.host",
        "port": "string(destination.port)",
        "none": "request.headers['x-none']",
        "gone": None,
    }
    edits = edits_of(every(MetricPlan(False, tags)))
    assert edits is not None
    labels = SUBJECT.labels._replace(source_workload="", destination_app="orders:80")
    extra = (("none", "unknown"), ("port", "80"), ("request_host", "orders:80"))
    assert edits.of(SUBJECT) == [Edited(labels, extra, ALL)]
    assert edits.of(EMPTY)[0].extra == (("none", "unknown"), ("port", "unknown"), ("request_host", "unknown"))


def test_metrics_with_other_labels_have_sets_of_their_own() -> None:
    edits = edits_of({"REQUEST_COUNT": MetricPlan(False, {"x": "'1'"}), "REQUEST_SIZE": MetricPlan(True)})
    assert edits is not None
    first, second = sorted(edits.of(SUBJECT), key=lambda one: one.families)
    assert (first.families, first.extra) == (0b000001, (("x", "1"),))
    assert (second.families, second.extra, second.labels) == (0b111010, (), SUBJECT.labels)


def test_a_label_is_not_longer_than_it_may_be() -> None:
    edits = edits_of(every(MetricPlan(False, {"x": "request.path + '" + "y" * 200 + "'"})))
    assert edits is not None
    assert len(edits.of(SUBJECT)[0].extra[0][1]) == 128


def test_nothing_is_counted_where_all_is_taken_away() -> None:
    for plans in (None, every(MetricPlan(True))):
        edits, tcp = edits_of(plans), tcp_edits_of(plans)
        assert edits is not None
        assert edits.of(SUBJECT) == []
        assert tcp is not None
        assert not tcp.counted


def test_calls_of_grpc_are_known_as_such_without_the_label() -> None:
    subject = Subject(RECORD, SUBJECT.labels._replace(request_protocol="grpc"))
    edits = edits_of(every(MetricPlan(False, {"request_protocol": None})))
    assert edits is not None
    (found,) = edits.of(subject)
    assert (found.grpc, found.labels.request_protocol) == (True, "")


def test_connections_have_istios_labels_and_no_others() -> None:
    tags = {"source_app": None, "destination_app": "string(destination.port)", "new": "'x'"}
    edits = tcp_edits_of(every(MetricPlan(False, tags)))
    assert edits is not None
    labels = TcpLabels("waypoint", source_app="a", destination_app="b")
    assert edits.of(labels, RECORD) == labels._replace(source_app="", destination_app="80")
    assert edits.counted
    plain = tcp_edits_of(every(MetricPlan(False, {"new": "'x'"})))
    assert plain is not None
    assert plain.of(labels, RECORD) is labels


def test_what_is_different_for_some_of_their_metrics_is_different_for_none() -> None:
    assert tcp_edits_of({}) is None
    assert tcp_edits_of({TCP_METRICS[0]: MetricPlan(True)}) is None
    assert tcp_edits_of(dict.fromkeys(TCP_METRICS, MetricPlan(True))) is not None


def test_names_that_contain_each_other_are_labels_of_their_own() -> None:
    """istio/istio#43949"""
    tags = {"cc_tenant": "request.headers['x-user']", "tenant": "request.method", "tenant_cc": "'3'"}
    edits = edits_of({"REQUEST_COUNT": MetricPlan(False, tags)})
    assert edits is not None
    (found,) = [each for each in edits.of(SUBJECT) if each.extra]
    assert found.extra == (("cc_tenant", "jason"), ("tenant", "GET"), ("tenant_cc", "3"))
