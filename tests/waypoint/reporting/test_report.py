"""What is said of what has ended."""

from __future__ import annotations

from tests.waypoint.exchange.test_exchange import begin
from tests.waypoint.mesh import CALLER, SERVERS, SERVICE, scope_with
from tests.waypoint.rig import Rig
from ztunnel.errors import Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.l7.policy.rule import Tried
from ztunnel.l7.reply import CONNECT_FAILED
from ztunnel.l7.telemetry.edits import edits_of, tcp_edits_of
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.l7.telemetry.merging import MetricPlan
from ztunnel.l7.trace import Context
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.http_policy import HttpAction
from ztunnel.model.telemetry import METRICS
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.request_counts import RequestCounts
from ztunnel.telemetry.request_log import render_request, render_request_json
from ztunnel.telemetry.span import Span
from ztunnel.waypoint.chain import Chain, Treatment
from ztunnel.waypoint.reporting.report import Caller, Reports, Telemetry
from ztunnel.waypoint.reporting.scope import Log, Scope, SpanPlan
from ztunnel.waypoint.reporting.tracing import SpanTag


def made(write=True, render=render_request):
    lines: list[str] = []
    scope = scope_with(lines.append, render) if write else Scope()
    telemetry = Telemetry(RequestCounts(), TcpMetrics(), lambda: 10**18, lambda service: scope)
    caller = Caller(Endpoint(CALLER.addresses[0], 41234), CALLER, CALLER.identity)
    chain = Chain(OriginalDestination(SERVICE.addresses[0], 80), SERVICE, Treatment.HTTP)
    return Reports(telemetry, caller, chain, lambda: 100.5), telemetry, lines


def test_a_call_of_grpc_says_its_status_and_another_does_not() -> None:
    for kind, expected in ((b"application/grpc", ("grpc", "5")), (b"text/plain", ("http", ""))):
        reports, telemetry, lines = made()
        rig = Rig()
        exchange, _ = begin(rig, b"POST", fields=[(b"content-type", kind)])
        exchange.destination = SERVERS[0]
        rig.server.respond()
        rig.server.end(((b"grpc-status", b"5"),))
        reports.ended(exchange, 2)
        (labels,) = telemetry.requests.series
        assert (labels.request_protocol, labels.grpc_response_status) == expected
        assert labels.destination_workload == "server-1"
        assert '"POST / HTTP/2" 200 - via_upstream' in lines[0]


def test_messages_of_grpc_are_counted_and_our_own_answers_have_a_status_of_grpc() -> None:
    reports, telemetry, lines = made()
    rig = Rig()
    exchange, _ = begin(rig, b"POST", end=False, fields=[(b"content-type", b"application/grpc")])
    for part in (b"\0\0\0\0\1x\0", b"\0\0\0\2yz"):
        exchange.body(memoryview(part))
    exchange.end(())
    rig.server.respond()
    rig.server.say(b"\0\0\0\0\0" * 3)
    rig.server.end(((b"grpc-status", b"0"),))
    reports.ended(exchange, 2)
    refused, client = begin(Rig(), b"POST", fields=[(b"content-type", b"application/grpc")])
    refused.failed(CONNECT_FAILED, "no route")
    reports.ended(refused, 2)
    assert client.said[0] == ("head", 200, True)
    assert '" 200 UF upstream_reset_before' in lines[1]
    first, second = telemetry.requests.series.items()
    assert (first[0].grpc_response_status, first[1].messages) == ("0", [2, 3])
    assert (second[0].response_code, second[0].grpc_response_status) == ("200", "14")


def test_without_a_log_it_only_counts() -> None:
    reports, telemetry, lines = made(write=False)
    rig = Rig()
    exchange, _ = begin(rig)
    exchange.gone()
    reports.ended(exchange, 1)
    (labels,) = telemetry.requests.series
    assert (labels.response_code, labels.response_flags) == ("0", "DC")
    assert lines == []


def test_names_that_peers_invent_do_not_pile_up() -> None:
    reports, _, _ = made(write=False)
    for status in range(200, 900):
        exchange, _ = begin(Rig())
        exchange.status = status
        reports.ended(exchange, 1)
    assert len(reports._kinds) <= 256


def test_connections_have_envoys_flags() -> None:
    reports, telemetry, lines = made()
    counts = Counts(3, 4)
    reports.closed(reports.opened(SERVERS[0], counts), counts, 100.0, "10.0.0.3:8080", Unreachable("cut"))
    reports.closed(None, Counts(), 100.0, "", Unreachable("no route"))
    assert ' UC - - "cut" 3 4 500 ' in lines[0]
    assert ' UF - - "no route" 0 0 500 ' in lines[1]
    assert {row.labels.reporter for row in telemetry.connections.rows(0.0)} == {"waypoint"}


def test_the_span_of_a_request_tells_of_trials() -> None:
    reports, _, _ = made()
    spans: list[Span] = []
    reports.scope.become(Scope((), None, SpanPlan(spans.append)))
    for trials in ((), (Tried("shop/p", True, HttpAction.DENY, "rule"),)):
        exchange, _ = begin(Rig())
        exchange.request.trace = Context("4b" * 16, "aa" * 8, "", True)
        exchange.trials = trials
        reports.ended(exchange, 1)
    plain, told = (dict(span.attributes) for span in spans)
    begins = "istio.authorization.dry_run.deny_policy"
    assert {name: told[name] for name in told.keys() - plain.keys()} == {
        f"{begins}.name": "rule", f"{begins}.result": "denied",
    }  # fmt: skip


def test_as_json() -> None:
    reports, _, lines = made(render=render_request_json)
    exchange, _ = begin(Rig())
    exchange.gone()
    reports.ended(exchange, 1)
    assert lines[0].startswith('{"start_time":')


def test_a_line_is_written_of_what_is_asked_for_and_changes_count_at_once() -> None:
    reports, telemetry, lines = made()
    scope = reports.scope
    (log,) = scope.logs
    scope.logs = (Log(log.take, Expression("response.code >= 400")),)
    for status in (200, 503):
        exchange, _ = begin(Rig())
        exchange.status = status
        reports.ended(exchange, 1)
    assert len(lines) == 1
    assert '" 503 ' in lines[0]
    peers = "filter_state.downstream_peer.name == 'caller' && upstream_peer.type == 'pod'"
    scope.logs = (Log(log.take, Expression(peers)),)
    for destination in (None, SERVERS[0]):
        exchange, _ = begin(Rig())
        exchange.destination = destination
        reports.ended(exchange, 1)
    assert len(lines) == 2
    scope.become(Scope())
    reports.ended(begin(Rig())[0], 1)
    assert len(lines) == 2
    assert sum(series.count for series in telemetry.requests.series.values()) == 5


def test_connections_are_filtered_by_what_is_known_of_them() -> None:
    reports, _, lines = made()
    (log,) = reports.scope.logs
    for text, count in (("response.code >= 400", 0), ("destination.port == 80 && connection.mtls", 1)):
        reports.scope.logs = (Log(log.take, Expression(text)),)
        reports.closed(None, Counts(), 100.0, "", None)
        assert len(lines) == count


def test_labels_are_those_that_an_operator_wants() -> None:
    reports, telemetry, _ = made(write=False)
    tags = {"source_app": None, "request_host": "request.host"}
    reports.scope.edits = edits_of(dict.fromkeys(METRICS, MetricPlan(False, tags)))
    reports.scope.tcp = tcp_edits_of(dict.fromkeys(METRICS, MetricPlan(False, {"source_app": None})))
    reports.ended(begin(Rig())[0], 1)
    assert not telemetry.requests.series
    (edited,) = telemetry.requests.edited
    assert (edited.labels.source_app, edited.extra) == ("", (("request_host", "a"),))
    reports.closed(reports.opened(SERVERS[0], Counts()), Counts(), 100.0, "10.0.0.3:8080", None)
    assert {row.labels.source_app for row in telemetry.connections.rows(0.0)} == {""}


def test_what_is_not_to_be_counted_is_not_and_its_line_tells_the_truth() -> None:
    reports, telemetry, lines = made()
    reports.scope.edits, reports.scope.tcp = edits_of(None), tcp_edits_of(None)
    reports.ended(begin(Rig())[0], 1)
    live = reports.opened(SERVERS[0], Counts())
    assert live is None
    reports.closed(live, Counts(), 100.0, "10.0.0.3:8080", Unreachable("cut"))
    assert not telemetry.requests.series
    assert not telemetry.requests.edited
    assert not list(telemetry.connections.rows(0.0))
    assert " UC - - " in lines[1]


def test_a_span_is_made_of_a_request_that_is_sampled() -> None:
    spans: list[Span] = []
    reports, _, _ = made(write=False)
    reports.scope.spans = SpanPlan(spans.append, (SpanTag("tag", lambda record: record.method),), False)
    for sampled in (True, False):
        exchange, _ = begin(Rig())
        exchange.request.trace = Context("4b" * 16, "aa" * 8, "", sampled)
        reports.ended(exchange, 1)
    (span,) = spans
    assert dict(span.attributes)["tag"] == "GET"
    assert not [name for name, _ in span.attributes if name.startswith("istio.")]
