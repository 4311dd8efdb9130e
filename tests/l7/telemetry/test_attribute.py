from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.telemetry.records import record_of
from ztunnel.l7 import reply
from ztunnel.l7.telemetry.attribute import BITS, Subject, Unknown, Value, attribute, members
from ztunnel.model.workload import Workload, WorkloadKind
from ztunnel.telemetry.request_counts import RequestLabels
from ztunnel.telemetry.request_log import RequestRecord

RECORD = record_of(
    0,
    method="GET",
    scheme="https",
    path="/a/b?c=d",
    protocol="HTTP/1.1",
    status=503,
    flag="UF,URX",
    details="upstream_reset",
    upstream_failure="refused",
    received_bytes=3,
    sent_bytes=5,
    duration_seconds=1.5,
    upstream_milliseconds=20,
    user_agent="curl/8",
    request_id="id-1",
    authority="orders:80",
    upstream_host="[fd00::7]:8080",
    upstream_cluster="inbound-vip|80|http|orders.shop.svc.cluster.local",
    downstream_local="10.0.0.1:80",
    downstream_remote="[fd00::1]:4711",
    route="first",
    request=((b"x-user", b"jason"), (b"x-twice", b"1"), (b"x-twice", b"2"), (b"referer", b"http://x/")),
    response=((b":status", b"503"), (b"server", b"s")),
    trailers=((b"grpc-status", b"14"),),
    attempts=2,
    peer="spiffe://cluster.local/ns/shop/sa/web",
    grpc_status="14",
)
LABELS = RequestLabels(source_workload="web", destination_workload_namespace="shop", destination_cluster="c2")
NODE = Workload("u3", "wp-1", "infra", "wp", node="n1", network="net", cluster="c1", workload_name="waypoint")
WEB, ORDERS = Workload("u1", "web-1", "shop"), Workload("u2", "orders-1", "shop")
SUBJECT = Subject(RECORD, LABELS, WEB, replace(ORDERS, kind=WorkloadKind.DEPLOYMENT))
EMPTY = Subject(RequestRecord(0), RequestLabels())

VALUES: list[tuple[str, Value]] = [
    ("filter_state.downstream_peer.name", "web-1"),
    ("filter_state.downstream_peer.type", "pod"),
    ("upstream_peer.name", "orders-1"),
    ("upstream_peer.type", "deployment"),
    ("downstream_peer.workload_name", "web"),
    ("upstream_peer.cluster", "c2"),
    ("upstream_peer.cluster_id", "c2"),
    ("node.metadata.NAME", "wp-1"),
    ("node.metadata.NAMESPACE", "infra"),
    ("node.metadata.CLUSTER_ID", "c1"),
    ("xds.node.metadata.NODE_NAME", "n1"),
    ("node.metadata.NETWORK", "net"),
    ("node.metadata.SERVICE_ACCOUNT", "wp"),
    ("xds.node.metadata.WORKLOAD_NAME", "waypoint"),
    ("request.path", "/a/b?c=d"),
    ("request.url_path", "/a/b"),
    ("request.query", "c=d"),
    ("request.host", "orders:80"),
    ("request.scheme", "https"),
    ("request.headers.:scheme", "https"),
    ("request.method", "GET"),
    ("request.protocol", "HTTP/1.1"),
    ("request.id", "id-1"),
    ("request.useragent", "curl/8"),
    ("request.referer", "http://x/"),
    ("request.duration", timedelta(seconds=1.5)),
    ("request.size", 3),
    ("request.total_size", 3 + len("x-userjasonx-twice1x-twice2refererhttp://x/")),
    ("request.headers.x-user", "jason"),
    ("request.headers.X-User", "jason"),
    ("request.headers.x-twice", "1,2"),
    ("request.headers.:path", "/a/b?c=d"),
    ("request.headers.:method", "GET"),
    ("request.headers.:authority", "orders:80"),
    ("request.headers.host", "orders:80"),
    ("response.code", 503),
    ("response.code_details", "upstream_reset"),
    ("response.flags", (1 << 5) | (1 << 15)),
    ("response.grpc_status", 14),
    ("response.size", 5),
    ("response.total_size", 5 + len(":status503servers")),
    ("response.backend_latency", timedelta(milliseconds=20)),
    ("response.headers.server", "s"),
    ("response.trailers.grpc-status", "14"),
    ("source.address", "[fd00::1]:4711"),
    ("source.port", 4711),
    ("destination.address", "10.0.0.1:80"),
    ("destination.port", 80),
    ("connection.mtls", True),
    ("connection.uri_san_peer_certificate", "spiffe://cluster.local/ns/shop/sa/web"),
    ("upstream.address", "[fd00::7]:8080"),
    ("upstream.port", 8080),
    ("upstream.transport_failure_reason", "refused"),
    ("upstream.request_attempt_count", 2),
    ("xds.cluster_name", "inbound-vip|80|http|orders.shop.svc.cluster.local"),
    ("xds.route_name", "first"),
    ("downstream_peer.workload", "web"),
    ("filter_state.downstream_peer.workload", "web"),
    ("filter_state.upstream_peer.namespace", "shop"),
]


@pytest.mark.parametrize(("name", "value"), VALUES, ids=[name for name, _ in VALUES])
def test_an_attribute_is_what_the_log_line_says(name: str, value: Value) -> None:
    names = tuple(name.split("."))
    assert attribute(names, NODE)(SUBJECT) == value


@pytest.mark.parametrize(
    "name",
    [
        "request.path", "request.headers.x-none", "request.headers.:path", "source.port", "upstream.port",
        "response.grpc_status", "response.backend_latency", "xds.route_name", "upstream_peer.app",
        "upstream_peer.name", "downstream_peer.type",
        "node.metadata.NAME", "request.referer",
        "connection.requested_server_name", "connection.termination_details",
    ],
)  # fmt: skip
def test_what_is_not_there_has_no_value(name: str) -> None:
    with pytest.raises(Unknown):
        attribute(tuple(name.split(".")))(EMPTY)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("request.nothing", "request.nothing is not known here; there are"),
        ("request", "request is not known here"),
        ("request.path.more", "request.path.more is not known"),
        ("request.headers", "request.headers is a map"),
        ("metadata.filter", "metadata.filter is not known"),
        ("request.time", "request.time is not known"),
        ("upstream_peer.labels", "there are upstream_peer.workload"),
        ("node.metadata.PLATFORM_METADATA", r"there are node.metadata\['NAME'\]"),
        ("node.metadata", "node.metadata is not known here; there are node"),
        ("node.id", "node.id is not known here"),
        ("xds.node", "^node is not known here"),
        ("filter_state.other", "other is not known"),
        ("istio_operationId", "attributegen"),
    ],
)
def test_an_attribute_that_is_not_known_is_refused_by_its_name(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attribute(tuple(name.split(".")))


def test_every_flag_of_a_reply_has_its_bit() -> None:
    given = {one.flag for one in vars(reply).values() if isinstance(one, reply.Reply)} - {reply.NO_FLAG}
    assert given <= BITS.keys()
    assert all(bit.bit_count() == 1 for bit in BITS.values())
    assert len(set(BITS.values())) == len(BITS)


def test_a_map_has_the_members_that_were_sent() -> None:
    holds = members(("request", "headers"))
    assert holds(SUBJECT, "X-User")
    assert not holds(SUBJECT, "x-none")
    with pytest.raises(Unknown):
        holds(SUBJECT, 1)
    with pytest.raises(ValueError, match="is no map"):
        members(("request", "path"))
