"""What is said of what has ended."""

from __future__ import annotations

from tests.waypoint.mesh import CALLER, SERVERS, SERVICE
from tests.waypoint.rig import Rig
from tests.waypoint.test_exchange import begin
from ztunnel.errors import Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.l7.reply import CONNECT_FAILED
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.request_counts import RequestCounts
from ztunnel.telemetry.request_log import render_request, render_request_json
from ztunnel.waypoint.chain import Chain, Treatment
from ztunnel.waypoint.report import Caller, Reports, Telemetry


def made(write=True, render=render_request):
    lines: list[str] = []
    telemetry = Telemetry(
        RequestCounts(), TcpMetrics(), lines.append if write else None, lambda: 10**18, render
    )
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
    assert len(reports._labels) <= 256


def test_connections_have_envoys_flags() -> None:
    reports, telemetry, lines = made()
    counts = Counts(3, 4)
    reports.closed(reports.opened(SERVERS[0], counts), counts, 100.0, "10.0.0.3:8080", Unreachable("cut"))
    reports.closed(None, Counts(), 100.0, "", Unreachable("no route"))
    assert ' UC - - "cut" 3 4 500 ' in lines[0]
    assert ' UF - - "no route" 0 0 500 ' in lines[1]
    assert {row.labels.reporter for row in telemetry.connections.rows(0.0)} == {"waypoint"}


def test_as_json() -> None:
    reports, _, lines = made(render=render_request_json)
    exchange, _ = begin(Rig())
    exchange.gone()
    reports.ended(exchange, 1)
    assert lines[0].startswith('{"start_time":')
