"""Services behind a waypoint: HTTP/1.1, HTTP/2 and plain TCP pass through it, counted and logged."""

from __future__ import annotations

import json
import select
import shlex
import signal
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from threading import Event

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from tests.l7.issuers import ISSUER, claims, jwk, jwks, key_of, token
from tests.mesh.lab import (
    SHOP,
    TCP_FAMILIES,
    Figures,
    Listener,
    Mesh,
    account,
    is_refused,
    parse_figures,
    read_all,
    read_exactly,
    reset,
    wait_until,
)
from tests.waypoint.tls_server import Authority
from ztunnel.demo import run, wait
from ztunnel.demo.call import get
from ztunnel.xds.pb import ext_authz_pb2
from ztunnel.xds.pb import limit_service_pb2 as pb

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

GATEWAY = """apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: wp
  namespace: shop
  labels: {istio.io/waypoint-for: service}
  annotations: {ambient.istio.io/xfcc-include-client-identity: "true"}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
"""


def service(name: str, ports: str, labels: str = "istio.io/use-waypoint: wp", app: str = "server") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n"
        f"spec: {{selector: {{app: {app}}}, ports: [{ports}]}}\n---\n"
    )


SERVER = """apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}}
spec:
  nodeName: node-2
  serviceAccountName: server
  containers: [{name: main, command: [sleep, infinity]}]
---
"""
OUTSIDER = """apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: shop, labels: {app: outsider, istio.io/dataplane-mode: none}}
spec:
  nodeName: node-2
  containers: [{name: main, command: [sleep, infinity]}]
---
"""
MANIFESTS = (
    SHOP
    + GATEWAY
    + SERVER
    + OUTSIDER
    + service(
        "outside",
        "{name: http, port: 80, targetPort: 8081}, {name: tcp, port: 90, targetPort: 8081}",
        app="outsider",
    )
    + service("web", "{name: http, port: 80, targetPort: 8081}")
    + service("newer", "{name: http2, port: 80, targetPort: 8081}")
    + service("rows", "{name: tcp-rows, port: 5432, targetPort: 8081}")
    + service("any", "{port: 90, targetPort: 8081}")
    + service("direct", "{name: http, port: 80, targetPort: 8081}", labels="")
)


class Waypoint:
    """The waypoint's pod."""

    def __init__(self, mesh: Mesh) -> None:
        self.laboratory = mesh.laboratory
        pods = self.laboratory.cluster().pods
        self.pod = next(one for one in pods if one.name.startswith("wp-"))
        names = self.laboratory.names
        self.netns = names.netns(names.pod(self.pod.namespace, self.pod.name))
        self.seen = 0
        self.before = self.figures()

    def settle(self, mesh: Mesh) -> None:
        """Count from here: what was before is over, and logged."""
        mark = f"/{time.monotonic_ns()}"
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
        client.sendall(b"GET %s HTTP/1.1\r\n\r\n" % mark.encode())
        assert b" 400 " in head_of(client)
        client.close()
        wait_until(lambda: any(mark in line[1] for line in self.lines()), "the log is up to date")

        def quiet() -> bool:
            before, self.seen = self.seen, len(self.lines())
            time.sleep(0.2)
            return before == self.seen

        wait_until(quiet, "no request is under way")
        self.before = self.figures()

    def figures(self) -> Figures:
        return parse_figures(get(self.netns, 15020, "/metrics")[1])

    def lines(self) -> list[list[str]]:
        """Lines of Envoy's form, cut into their words."""
        log = self.laboratory.pod_log(self.pod.full_name)
        return [shlex.split(line) for line in log.splitlines() if line.startswith("[")]

    def line(self, count: int = 1) -> list[str]:
        """The last of `count` lines that came since."""
        found = wait_until(
            lambda: lines if len(lines := self.lines()[self.seen :]) >= count else None, f"{count} lines"
        )
        assert len(found) == count, found
        return found[-1]

    def grows(self, name: str, by: float, **labels: str) -> None:
        """A figure has grown by so much, or does so when the page is made anew."""

        def grown() -> float:
            return self.figures().total(name, **labels) - self.before.total(name, **labels)

        wait_until(lambda: grown() >= by, f"{name} {labels} grows by {by}, not {grown()}")
        assert grown() == by


@pytest.fixture
def waypoint(mesh: Mesh) -> Waypoint:
    made = Waypoint(mesh)
    for family in TCP_FAMILIES:  # the node proxies may not know yet that it is ready
        wait_until(partial(answers, mesh, family), "the waypoint is known")
    made.settle(mesh)
    return made


def answers(mesh: Mesh, family: type[IPv4Address] | type[IPv6Address]) -> bool:
    return mesh.call("shop/caller", vip(mesh, "web", family), 80).error is None


def vip(mesh: Mesh, name: str, family: type[IPv4Address] | type[IPv6Address]) -> str:
    found = mesh.laboratory.service(f"shop/{name}").addresses
    return str(next(ip for ip in found if isinstance(ip, family)))


def server(mesh: Mesh):
    return mesh.listen("shop/server", port=8081)


def head_of(sock: socket.socket) -> bytes:
    got = bytearray()
    while b"\r\n\r\n" not in got:
        part = sock.recv(1)
        assert part, bytes(got)
        got += part
    return bytes(got)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_requests_pass_through_and_are_counted_and_logged(mesh: Mesh, waypoint: Waypoint, family) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
    body = b"x" * 1000
    client.sendall(
        b"POST /a/./b?c=d HTTP/1.1\r\nHost: web.shop\r\nUser-Agent: test\r\nX-Forwarded-Client-Cert: evil\r\n"
        b"Connection: keep-alive, x-mine\r\nX-Mine: 1\r\nContent-Length: 1000\r\n\r\n" + body
    )
    there = listener.accept()
    head = head_of(there)
    assert head.startswith(b"POST /a/b?c=d HTTP/1.1\r\nhost: web.shop\r\n"), head
    assert b"x-request-id: " in head
    assert b"x-forwarded-proto: http\r\n" in head
    assert b"evil" not in head
    told = f"By={account('shop/wp')};URI={account('shop/caller')}"
    assert f"x-forwarded-client-cert: {told}\r\n".encode() in head
    assert b"x-mine" not in head
    assert read_exactly(there, 1000) == body
    assert str(there.getpeername()[0]).removeprefix("::ffff:") in map(str, waypoint.pod.addresses)
    there.sendall(b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\nServer: mine\r\n\r\nhello")
    answer = head_of(client)
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    assert b"server: mine\r\n" in answer
    assert b"x-envoy-upstream-service-time: " in answer
    assert read_exactly(client, 5) == b"hello"
    line = waypoint.line()
    assert line[1:5] == ["POST /a/b?c=d HTTP/1.1", "201", "-", "via_upstream"], line
    assert line[7:9] == ["1000", "5"], line
    assert line[12] == "test", line
    assert line[14] == "web.shop", line
    labels = {
        "reporter": "waypoint",
        "source_workload": "caller",
        "source_principal": account("shop/caller"),
        "destination_workload": "server",
        "destination_principal": account("shop/server"),
        "destination_service": "web.shop.svc.cluster.local",
        "response_code": "201",
        "request_protocol": "http",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }
    waypoint.grows("istio_requests_total", 1, **labels)
    waypoint.grows("istio_request_bytes_sum", 1000, **labels)
    waypoint.grows("istio_response_bytes_sum", 5, **labels)
    waypoint.grows("istio_request_duration_milliseconds_count", 1, **labels)
    # The connection goes on, to the server as well.
    client.sendall(b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n")
    assert head_of(there).startswith(b"GET / HTTP/1.1\r\n")
    there.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert b"transfer-encoding: chunked" in head_of(client)
    assert read_exactly(client, 13) == b"3\r\nabc\r\n0\r\n\r\n"
    assert waypoint.line(2)[1:3] == ["GET / HTTP/1.1", "200"]


def test_a_server_that_is_not_there_is_a_503(mesh: Mesh, waypoint: Waypoint) -> None:
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 503 ")
    line = waypoint.line()
    assert line[2:4] == ["503", "URX,UF"], line
    waypoint.grows("istio_requests_total", 1, response_code="503", response_flags="URX,UF")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_tcp_passes_as_it_is(mesh: Mesh, waypoint: Waypoint, family) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "rows", family), 5432)
    there = listener.accept()
    client.sendall(b"\x00\x01ping")
    client.shutdown(socket.SHUT_WR)
    assert read_all(there) == b"\x00\x01ping"
    there.sendall(b"pong")
    there.close()
    assert read_all(client) == b"pong"
    line = waypoint.line()
    assert line[1:4] == ["- - -", "0", "-"], line
    assert line[7:9] == ["6", "4"], line
    labels = {"reporter": "waypoint", "destination_service": "rows.shop.svc.cluster.local"}
    waypoint.grows("istio_tcp_received_bytes_total", 6, **labels)
    waypoint.grows("istio_tcp_sent_bytes_total", 4, **labels)


def test_a_port_that_nobody_names_is_found_out(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "any", IPv4Address), 90)
    client.sendall(b"GET / HTTP/1.1\r\nHost: any\r\n\r\n")
    assert b"x-request-id: " in head_of(listener.accept())
    quiet = mesh.connect("shop/caller", vip(mesh, "any", IPv6Address), 90)
    there = listener.accept()
    there.sendall(b"220 ready\r\n")
    assert read_exactly(quiet, 11) == b"220 ready\r\n"
    quiet.sendall(b"HELO\r\n")
    assert read_exactly(there, 6) == b"HELO\r\n"
    waypoint.grows("ztunnel_waypoint_undetected_total", 1)


def test_http2_with_prior_knowledge_passes_with_its_trailers(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
    near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    near.initiate_connection()
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"web"), (b":path", b"/a.B/C"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    ]  # fmt: skip
    near.send_headers(1, fields)
    near.send_data(1, b"\0\0\0\0\3abc" * 2, end_stream=True)
    client.sendall(near.data_to_send())
    there = listener.accept()
    far = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    far.initiate_connection()
    asked = exchange(there, far, h2.events.StreamEnded)
    (request,) = [each for each in asked if isinstance(each, h2.events.RequestReceived)]
    assert (b"te", b"trailers") in request.headers
    far.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    far.send_data(1, b"\0\0\0\0\0" * 3)
    far.send_headers(1, [(b"grpc-status", b"5")], end_stream=True)
    there.sendall(far.data_to_send())
    told = exchange(client, near, h2.events.StreamEnded)
    (trailers,) = [each for each in told if isinstance(each, h2.events.TrailersReceived)]
    assert trailers.headers == [(b"grpc-status", b"5")]
    line = waypoint.line()
    assert line[1:3] == ["POST /a.B/C HTTP/2", "200"], line
    labels = {"request_protocol": "grpc", "grpc_response_status": "5", "response_code": "200"}
    waypoint.grows("istio_requests_total", 1, **labels)
    waypoint.grows("istio_request_messages_total", 2, request_protocol="grpc")
    waypoint.grows("istio_response_messages_total", 3, request_protocol="grpc")


def test_a_client_of_http1_is_served_by_a_server_of_http2(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "newer", IPv4Address), 80)
    client.sendall(
        b"PUT /x HTTP/1.1\r\nHost: newer\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    there = listener.accept()
    far = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    far.initiate_connection()
    asked = exchange(there, far, h2.events.StreamEnded)
    assert b"".join(each.data for each in asked if isinstance(each, h2.events.DataReceived)) == b"abc"
    far.send_headers(1, [(b":status", b"200")])
    far.send_data(1, b"answer")
    far.send_headers(1, [(b"x-sum", b"5")], end_stream=True)
    there.sendall(far.data_to_send())
    assert b"transfer-encoding: chunked" in head_of(client)
    assert read_exactly(client, 26) == b"6\r\nanswer\r\n0\r\nx-sum: 5\r\n\r\n"
    line = waypoint.line()
    assert line[1:3] == ["PUT /x HTTP/1.1", "200"], line
    assert line[7:9] == ["3", "6"], line


def test_a_client_of_http2_is_served_by_a_server_of_http1(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
    near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    near.initiate_connection()
    fields = [(b":method", b"PUT"), (b":scheme", b"http"), (b":authority", b"web"), (b":path", b"/x")]
    near.send_headers(1, [*fields, (b"cookie", b"a=1"), (b"cookie", b"b=2")])
    for number in range(5):  # before it has read any settings
        near.send_data(1, bytes(10_000), end_stream=number == 4)
    client.sendall(near.data_to_send())
    there = listener.accept()
    head = head_of(there)
    assert head.startswith(b"PUT /x HTTP/1.1\r\nhost: web\r\n"), head
    assert b"\r\ncookie: a=1; b=2\r\n" in head
    assert dechunked(there) == bytes(50_000)
    there.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\nx-sum: 5\r\n\r\n"
    )
    told = exchange(client, near, h2.events.StreamEnded)
    assert b"".join(each.data for each in told if isinstance(each, h2.events.DataReceived)) == b"answer"
    (trailers,) = [each for each in told if isinstance(each, h2.events.TrailersReceived)]
    assert trailers.headers == [(b"x-sum", b"5")]
    assert waypoint.line()[1:3] == ["PUT /x HTTP/2", "200"]


def exchange(sock: socket.socket, side: h2.connection.H2Connection, until: type) -> list[h2.events.Event]:
    """Read, and answer what the protocol asks for, until that has happened."""
    events: list[h2.events.Event] = []
    while not any(isinstance(each, until) for each in events):
        octets = sock.recv(1 << 16)
        assert octets, events
        events += side.receive_data(octets)
        if told := side.data_to_send():
            sock.sendall(told)
    return events


def test_bulk_passes_both_ways_at_once(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    body = bytes(range(256)) * (32 << 10)
    client.sendall(b"PUT /big HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
    there = listener.accept()
    head_of(there)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(client.sendall, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        got = pool.submit(dechunked, there)
        assert got.result() == body
        sent.result()
        back = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        sent = pool.submit(there.sendall, back + body)
        head_of(client)
        assert read_exactly(client, len(body)) == body
        sent.result()
    assert waypoint.line()[7:9] == [str(len(body))] * 2


def dechunked(sock: socket.socket) -> bytes:
    """A chunked body."""
    got = bytearray()
    with sock.makefile("rb") as file:
        while size := int(file.readline(), 16):
            got += file.read(size)
            assert file.read(2) == b"\r\n"
        assert file.readline() == b"\r\n"
    return bytes(got)


def test_a_websocket_passes_both_ways(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    there = listener.accept()
    assert b"upgrade: websocket\r\n" in head_of(there)
    there.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"
    )
    assert b"upgrade: websocket\r\n" in head_of(client)
    assert read_exactly(client, 4) == b"\x81\x02hi"
    client.sendall(b"\x81\x82abcd")
    assert read_exactly(there, 6) == b"\x81\x82abcd"
    there.close()
    assert read_all(client) == b""
    assert waypoint.line()[2] == "101"


@pytest.mark.parametrize("offered", [b"h2c", b"TLS/1.2"])
def test_an_offer_to_upgrade_is_passed_over(mesh: Mesh, waypoint: Waypoint, offered: bytes) -> None:
    """Java's and Apache's clients make one with each request (envoyproxy/envoy#7973, istio/istio#53239)."""
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % offered)
    there = listener.accept()
    assert b"upgrade" not in head_of(there)
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 200 ")
    assert waypoint.line()[2] == "200"


def test_a_server_that_closes_as_the_next_request_comes_fails_no_get(mesh: Mesh, waypoint: Waypoint) -> None:
    """The race of keep-alive (istio/istio#55138): asked again on another connection."""
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    get, ok = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    client.sendall(get)
    first = listener.accept()
    head_of(first)
    first.sendall(ok)
    head_of(client)
    client.sendall(get)
    head_of(first)
    first.close()
    second = listener.accept()
    head_of(second)
    second.sendall(ok)
    assert head_of(client).startswith(b"HTTP/1.1 200 ")
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    head_of(second)
    second.close()
    assert head_of(client).startswith(b"HTTP/1.1 503 ")
    assert waypoint.line(3)[2:4] == ["503", "UC"]


def test_what_is_under_way_when_the_waypoint_is_to_end_comes_to_its_end(
    mesh: Mesh, waypoint: Waypoint
) -> None:
    listener = server(mesh)
    laboratory = mesh.laboratory
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    there = listener.accept()
    head_of(there)
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
    head_of(client)
    assert read_exactly(client, 3) == b"one"  # the first bytes are out before the last are in
    cgroup = laboratory.names.pod_cgroup(waypoint.pod.node.name, waypoint.pod.uid)
    run.send(cgroup, signal.SIGTERM)
    try:
        # What it takes until every node knows stands, and is closed when it ends.
        wait_until(lambda: not answers(mesh, IPv4Address), "it takes no more")
        there.sendall(b"two")
        assert read_exactly(client, 3) == b"two"
        wait.until_gone(cgroup)
    finally:
        started = run.start_pod(laboratory.names, waypoint.pod)
        laboratory._children += [each.process for each in started]
    wait_until(partial(answers, mesh, IPv4Address), "it is back")


@pytest.mark.parametrize("length", [1 << 21, 1 << 14])
def test_an_answer_of_a_server_that_reads_no_more_reaches_the_client(
    mesh: Mesh, waypoint: Waypoint, length: int
) -> None:
    """envoyproxy/envoy#38697: it closes over bytes that it has not read, which resets the connection."""
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    with ThreadPoolExecutor(1) as pool:
        request = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length

        def send() -> None:
            with suppress(OSError):  # nobody reads the rest
                client.sendall(request + bytes(length))

        sent = pool.submit(send)
        there = listener.accept()
        head_of(there)
        there.sendall(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")
        there.close()
        assert head_of(client).startswith(b"HTTP/1.1 413 ")
        assert read_exactly(client, 3) == b"no!"
        sent.result()
    assert waypoint.line()[2:4] == ["413", "-"]


def test_requests_leave_a_node_proxy_that_is_replaced_and_none_is_cut_off(
    mesh: Mesh, waypoint: Waypoint
) -> None:
    """istio/istio#43239: a connection that a waypoint keeps stays on the session of the proxy that drains."""
    listener, stop = server(mesh), Event()
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    statuses: list[bytes] = []

    def serve(there: socket.socket) -> None:
        with suppress(AssertionError, OSError):  # until its connection ends
            while True:
                head_of(there)
                time.sleep(0.1)
                there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def accept() -> None:
        with suppress(OSError):  # until the listener is shut
            while True:
                there.append(listener.accept())
                pool.submit(serve, there[-1])

    def ask() -> None:
        while not stop.is_set():
            client.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            statuses.append(head_of(client).split()[1])

    there: list[socket.socket] = []
    with ThreadPoolExecutor(8) as pool:
        listener.sock.settimeout(None)
        pool.submit(accept)
        asked = pool.submit(ask)
        try:
            wait_until(lambda: len(statuses) > 3, "requests pass")
            mesh.laboratory.restart_node("node-2")
            before = len(statuses)
            wait_until(lambda: len(statuses) > before + 3, "requests pass")
        finally:
            stop.set()
            asked.result()
            listener.sock.shutdown(socket.SHUT_RDWR)
            for each in there:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
    assert set(statuses) == {b"200"}
    assert len(there) > 1


def test_a_client_that_goes_is_logged_and_its_server_told(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    there = listener.accept()
    head_of(there)
    reset(client)
    assert is_refused(there)
    assert waypoint.line()[2:5] == ["0", "DC", "downstream_remote_disconnect"]


def test_pods_are_reached_as_before_by_what_is_not_attached(mesh: Mesh, waypoint: Waypoint) -> None:
    listener = server(mesh)
    for address, port in (
        (vip(mesh, "direct", IPv4Address), 80),
        (mesh.address("shop/server"), 8081),
        (mesh.address("shop/server", IPv6Address), 8081),
    ):
        client = mesh.connect("shop/caller", address, port)
        there = listener.accept()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert head_of(there) == b"GET / HTTP/1.1\r\n\r\n"
    assert waypoint.lines()[waypoint.seen :] == []


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_server_that_is_not_in_the_mesh_is_called_as_it_is(mesh: Mesh, waypoint: Waypoint, family) -> None:
    listener = mesh.listen("shop/outsider", port=8081)
    address = vip(mesh, "outside", family)
    client = mesh.connect("shop/caller", address, 80)
    body = bytes(range(256)) * 4096
    there = None
    for count in (1, 2):
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        there = there or listener.accept()
        head_of(there)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(client.sendall, body)
            assert read_exactly(there, len(body)) == body
            sent.result()
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(there.sendall, body)
            head_of(client)
            assert read_exactly(client, len(body)) == body
            sent.result()
        line = waypoint.line(count)
        assert line[2:4] == ["200", "-"], line
        assert line[15].endswith(":8081"), line
    labels = {"destination_workload": "outsider", "destination_principal": "unknown", "response_code": "200"}
    waypoint.grows("istio_requests_total", 2, **labels)
    passed = mesh.connect("shop/caller", address, 90)
    passed.sendall(b"question")
    passed.shutdown(socket.SHUT_WR)
    there = listener.accept()
    assert read_all(there) == b"question"
    there.sendall(b"answer")
    there.close()
    assert read_all(passed) == b"answer"
    waypoint.grows("istio_tcp_connections_closed_total", 1, destination_workload="outsider")


def policy(rules: str, target: str = "Service", action: str = "ALLOW", name: str = "web") -> str:
    group = "gateway.networking.k8s.io" if target.startswith("Gateway") else ""
    namespace = "istio-system" if target == "GatewayClass" else "shop"
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: {namespace}}}\n"
        f'spec: {{targetRefs: [{{kind: {target}, group: "{group}", name: {name}}}], '
        f"action: {action}, rules: [{rules}]}}\n---\n"
    )


ONLY_GET = "{to: [{operation: {methods: [GET]}}]}"
OF_CALLER = "{from: [{source: {principals: [cluster.local/ns/shop/sa/caller]}}]}"
OF_ANOTHER = "{from: [{source: {principals: [cluster.local/ns/shop/sa/another]}}]}"
FORGED = (
    b"X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/shop/sa/another\r\n"
    b"X-Envoy-Peer-Metadata: another\r\nForwarded: for=another\r\n"
)


class Asker:
    """A client that asks again and again, and the server."""

    def __init__(self, mesh: Mesh, family=IPv4Address, listener: Listener | None = None) -> None:
        self.listener = listener or server(mesh)
        self.client = mesh.connect("shop/caller", vip(mesh, "web", family), 80)

    def status(self, method: bytes = b"GET", fields: bytes = b"") -> bytes:
        self.client.sendall(b"%b /x HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, fields))
        self.serve()
        head = head_of(self.client)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        assert read_exactly(self.client, length) in (b"", b"RBAC: access denied")
        return head.split()[1]

    def serve(self) -> bytes:
        """Answer as the server, unless the client has an answer already; the head of what was asked."""
        if self.client in select.select([self.client, self.listener.sock], [], [], 10)[0]:
            return b""
        there = self.listener.accept()
        head = head_of(there)
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return head


@pytest.mark.parametrize(
    ("target", "name", "family"),
    [("Service", "web", IPv4Address), ("Gateway", "wp", IPv6Address)],
)
def test_requests_are_judged_by_policies_of_what_is_called(
    mesh: Mesh, waypoint: Waypoint, target: str, name: str, family
) -> None:
    asker = Asker(mesh, family)
    assert asker.status(b"DELETE") == b"200"
    mesh.apply(policy(ONLY_GET, target, name=name))
    try:
        wait_until(lambda: asker.status(b"DELETE") == b"403", "it is refused")
        assert asker.status(b"GET") == b"200"
        waypoint.settle(mesh)
        assert asker.status(b"DELETE") == b"403"
        line = waypoint.line()
        assert line[1:5] == [
            "DELETE /x HTTP/1.1", "403", "-", "rbac_access_denied_matched_policy[none]",
        ]  # fmt: skip
        labels = {"reporter": "waypoint", "response_code": "403", "response_flags": "-"}
        waypoint.grows("istio_requests_total", 1, source_principal=account("shop/caller"), **labels)
        waypoint.grows("ztunnel_policy_denials_total", 1, reporter="waypoint", policy="none allowed")
        other = mesh.call("shop/caller", vip(mesh, "rows", family), 5432)
        if target == "Service":
            asker.listener.accept()  # it is another one
        else:
            assert other.refused
    finally:
        mesh.apply(policy(ONLY_GET, target, name=name), delete=True)
    wait_until(lambda: asker.status(b"DELETE") == b"200", "it is served again")


def test_who_calls_is_who_has_proved_it(mesh: Mesh, waypoint: Waypoint) -> None:
    asker = Asker(mesh)
    mesh.apply(policy(OF_ANOTHER))
    try:
        wait_until(lambda: asker.status() == b"403", "it is refused")
        assert asker.status(fields=FORGED) == b"403"
        mesh.apply(policy(OF_CALLER))
        wait_until(lambda: asker.status() == b"200", "it is served")
        mesh.apply(policy(OF_CALLER, action="DENY"))
        wait_until(lambda: asker.status() == b"403", "it is refused")
        expected = ["403", "-", "rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]]"]
        wait_until(lambda: waypoint.lines()[-1][2:5] == expected, "the log names it")
    finally:
        mesh.apply(policy(OF_CALLER), delete=True)


def test_policies_come_and_go_without_refusing_what_they_allow(mesh: Mesh, waypoint: Waypoint) -> None:
    """They arrive before what names them, and go after it: no request meets half of a change."""
    listener = server(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    client.sendall(b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n")
    there = listener.accept()
    stop, statuses = Event(), []

    def serve() -> None:
        while True:
            head_of(there)
            there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def ask() -> None:
        while not stop.is_set():
            statuses.append(head_of(client).split()[1])
            client.sendall(b"GET /n HTTP/1.1\r\nHost: a\r\n\r\n")
        statuses.append(head_of(client).split()[1])

    with ThreadPoolExecutor(2) as pool:
        served, asked = pool.submit(serve), pool.submit(ask)
        try:
            for text, gone in (
                (policy(OF_CALLER), False),
                (policy(OF_CALLER, "Gateway", name="wp"), False),
                (policy(OF_CALLER), True),
            ):
                mesh.apply(text, delete=gone)
                before = len(statuses)
                wait_until(lambda at=before: len(statuses) > at + 20, "requests pass")
        finally:
            stop.set()
            asked.result()
            there.shutdown(socket.SHUT_RDWR)
            assert served.exception() is not None
    assert set(statuses) == {b"200"}
    assert len(statuses) > 60


MESH_CONFIG = """apiVersion: v1
kind: ConfigMap
metadata: {name: ztunnel-mesh, namespace: ztunnel-system}
data:
  mesh: |
    extensionProviders:
    - name: zipkin
      zipkin: {service: outside.shop.svc.cluster.local, port: 80}
---
"""
WISHES = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: web}]
  accessLogging:
  - providers: [{name: envoy}]
    filter: {expression: "response.code >= 400"}
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - tagOverrides:
        request_path: {value: request.url_path}
        source_app: {operation: REMOVE}
    - match: {metric: REQUEST_SIZE}
      disabled: true
  tracing:
  - providers: [{name: zipkin}]
    randomSamplingPercentage: 100
    customTags: {user: {header: {name: x-user, defaultValue: nobody}}}
---
"""


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_telemetry_says_what_is_logged_counted_and_traced(mesh: Mesh, waypoint: Waypoint, family) -> None:
    collector = mesh.listen("shop/outsider", port=8081)
    asker = Asker(mesh, family)
    mesh.apply(MESH_CONFIG + WISHES)
    marks = {"reporter": "waypoint", "request_path": "/x", "response_code": "200"}
    try:

        def changed() -> bool:
            assert asker.status(fields=b"X-User: jason\r\n") == b"200"
            counted = waypoint.figures().total("istio_requests_total", **marks) > 0
            return counted and bool(select.select([collector.sock], [], [], 0)[0])

        wait_until(changed, "labels are as they are wanted, and spans come: the provider may come later")
        there = collector.accept()
        head = head_of(there)
        assert head.startswith(b"POST /api/v2/spans HTTP/1.1\r\n"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        span = json.loads(read_exactly(there, length))[0]
        there.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        assert (span["kind"], span["name"]) == ("SERVER", "web.shop.svc.cluster.local:80/*")
        assert (span["tags"]["user"], span["tags"]["http.status_code"]) == ("jason", "200")
        assert span["tags"]["istio.source_workload"] == "caller"
        seen = len(waypoint.lines())
        assert asker.status(fields=b"Host: twice\r\n") == b"400"
        line = wait_until(lambda: waypoint.lines()[seen:], "what has failed is logged")[0]
        assert line[2] == "400", line
        assert len(waypoint.lines()) == seen + 1
        figures = waypoint.figures()
        assert figures.total("istio_response_bytes_count", **marks) > 0
        assert figures.total("istio_request_bytes_count", **marks) == 0
        assert figures.total("istio_requests_total", source_app="caller", **marks) == 0
    finally:
        mesh.apply(MESH_CONFIG + WISHES, delete=True)
    before, asker = len(waypoint.lines()), Asker(mesh, family, asker.listener)

    def logged() -> bool:
        assert asker.status() == b"200"
        return len(waypoint.lines()) > before

    wait_until(logged, "it is as before")


COLLECTOR_TLS = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec:
  host: outside.shop.svc.cluster.local
  trafficPolicy: {tls: {mode: SIMPLE, sni: collector.example, caCertificates: %s}}
---
"""


def test_a_collector_is_called_by_the_tls_that_is_asked_for(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("collector", "collector.example"))
    collector, asker = mesh.listen("shop/outsider", port=8081), Asker(mesh, IPv4Address)
    rule = COLLECTOR_TLS % authority.roots
    mesh.apply(rule)  # first, as nothing is to be said in plaintext
    mesh.apply(MESH_CONFIG + WISHES)
    try:

        def spans() -> bytes | None:
            """What comes over TLS; in plaintext nothing has come before."""
            assert asker.status() == b"200"
            if not select.select([collector.sock], [], [], 0.1)[0]:
                return None
            with context.wrap_socket(collector.accept(), server_side=True) as there:
                head = head_of(there)
                there.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                return head

        head = wait_until(spans, "spans come")
        assert head.startswith(b"POST /api/v2/spans HTTP/1.1\r\nhost: outside.shop.svc."), head
    finally:
        mesh.apply(MESH_CONFIG + WISHES + rule, delete=True)


def test_the_client_is_at_its_own_address(mesh: Mesh, waypoint: Waypoint) -> None:
    """As policies see it, and not at that of a proxy (istio/istio#46982)."""
    listener = server(mesh)
    askers = [Asker(mesh, family, listener) for family in TCP_FAMILIES]
    at = "{from: [{source: {ipBlocks: ['%s', '%s']}}]}"
    own, other = (
        policy(at % tuple(mesh.address(pod, family) for family in TCP_FAMILIES))
        for pod in ("shop/caller", "shop/server")
    )
    mesh.apply(other)
    try:
        for asker in askers:
            wait_until(lambda by=asker: by.status() == b"403", "it is refused")
        mesh.apply(own)
        for asker in askers:
            wait_until(lambda by=asker: by.status() == b"200", "it is served")
    finally:
        mesh.apply(own, delete=True)


def test_a_call_of_grpc_is_told_that_permission_is_denied(mesh: Mesh, waypoint: Waypoint) -> None:
    asker = Asker(mesh)
    mesh.apply(policy(ONLY_GET))
    try:
        wait_until(lambda: asker.status(b"DELETE") == b"403", "it is refused")
        waypoint.settle(mesh)
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
        near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        near.initiate_connection()
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"web"), (b":path", b"/a/B")]
        near.send_headers(1, [*fields, (b"content-type", b"application/grpc"), (b"te", b"trailers")])
        client.sendall(near.data_to_send())
        told = exchange(client, near, h2.events.StreamEnded)
        (answer,) = [each for each in told if isinstance(each, h2.events.ResponseReceived)]
        assert {(b":status", b"200"), (b"grpc-status", b"7")} <= set(answer.headers)
        assert (b"grpc-message", b"RBAC: access denied") in answer.headers
        assert waypoint.line()[4] == "rbac_access_denied_matched_policy[none]"
        waypoint.grows("istio_requests_total", 1, request_protocol="grpc", grpc_response_status="7")
    finally:
        mesh.apply(policy(ONLY_GET), delete=True)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_what_is_under_way_is_ended_by_a_change_that_refuses_it(
    mesh: Mesh, waypoint: Waypoint, family
) -> None:
    """A websocket, a request without an answer, and a connection that is no HTTP."""
    listener = server(mesh)
    rows = mesh.connect("shop/caller", vip(mesh, "rows", family), 5432)
    rows.sendall(b"hello")
    assert read_exactly(listener.accept(), 5) == b"hello"
    upgraded = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
    upgraded.sendall(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    there = listener.accept()
    head_of(there)
    there.sendall(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    head_of(upgraded)
    waiting = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
    waiting.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    head_of(listener.accept())
    both = policy(OF_CALLER) + policy(OF_CALLER, name="rows").replace("name: p,", "name: q,")
    try:
        mesh.apply(both)
        upgraded.sendall(b"on")
        assert read_exactly(there, 2) == b"on"
        mesh.apply(both.replace("sa/caller", "sa/another"))
        assert is_refused(upgraded)
        assert is_refused(there)
        assert head_of(waiting).startswith(b"HTTP/1.1 403 ")
        assert is_refused(rows)
    finally:
        mesh.apply(both, delete=True)


ISSUER_RULE = (
    f"{{issuer: '{ISSUER}', %s, outputClaimToHeaders: [{{header: x-user, claim: sub}}], "
    "outputPayloadToHeader: x-payload}"
)
ROLE_ADMIN = "{key: 'request.auth.claims[realm][roles]', values: [admin]}"
OF_ALICE = f"{{from: [{{source: {{requestPrincipals: ['{ISSUER}/alice']}}}}], when: [{ROLE_ADMIN}]}}"


def authentication(rule: str, name: str = "web") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: jwt, namespace: shop}\n"
        f'spec: {{targetRefs: [{{kind: Service, group: "", name: {name}}}], jwtRules: [{rule}]}}\n---\n'
    )


def signed(**more: object) -> bytes:
    """A token that is good for ten minutes, unless something else is said."""
    return token(claims(iat=None, **{"exp": int(time.time()) + 600, **more}), "EdDSA")  # type: ignore[arg-type]


def bearing(text: bytes, more: bytes = b"") -> bytes:
    return b"Authorization: Bearer " + text + b"\r\n" + more


class TokenAsker(Asker):
    """The same; `head` is what the server was asked last, `body` what the client was told."""

    head = body = b""

    def status(self, method: bytes = b"GET", fields: bytes = b"") -> bytes:
        self.client.sendall(b"%b /x HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, fields))
        self.head = self.serve() or self.head
        head = self.answer = head_of(self.client)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        self.body = read_exactly(self.client, length)
        return head.split()[1]


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_tokens_are_proved_and_policies_judge_by_them(mesh: Mesh, waypoint: Waypoint, family) -> None:
    asker = TokenAsker(mesh, family)
    rules = authentication(ISSUER_RULE % f"jwks: '{jwks(jwk('EdDSA'))}'")
    mesh.apply(rules)
    try:
        expired = bearing(signed(exp=1))
        wait_until(lambda: asker.status(fields=expired) == b"401", "tokens are looked at")
        assert asker.body == b"Jwt is expired"
        assert b'www-authenticate: Bearer realm="http://a/x", error="invalid_token"\r\n' in asker.answer
        waypoint.settle(mesh)
        assert asker.status(fields=expired) == b"401"
        line = waypoint.line()
        assert line[1:5] == ["GET /x HTTP/1.1", "401", "-", "jwt_authn_access_denied{Jwt_is_expired}"], line
        waypoint.grows("istio_requests_total", 1, response_code="401", response_flags="-")
        waypoint.grows("ztunnel_waypoint_tokens_refused_total", 1, reason="Jwt is expired")
        stranger = token(claims(exp=int(time.time()) + 600), "EdDSA", key=key_of("EdDSA", "stranger"))
        assert asker.status(fields=bearing(stranger)) == b"401"
        assert asker.body == b"Jwt verification fails"
        text = signed(realm={"roles": ["user", "admin"]})
        assert asker.status(fields=bearing(text, b"X-User: root\r\nX_User: root\r\n")) == b"200"
        assert b"\r\nx-user: alice\r\n" in asker.head
        assert b"\r\nx-payload: " + text.split(b".")[1] + b"\r\n" in asker.head
        assert b"root" not in asker.head
        assert b"authorization" not in asker.head.lower()
        assert asker.status(fields=b"X-User: root\r\n") == b"200"  # nobody is asked for a token yet
        assert b"root" not in asker.head
        mesh.apply(policy(OF_ALICE))
        wait_until(lambda: asker.status() == b"403", "a token is asked for")
        assert asker.body == b"RBAC: access denied"
        assert asker.status(fields=bearing(text)) == b"200"
        assert asker.status(fields=bearing(signed(realm={"roles": ["user"]}))) == b"403"
        assert asker.status(fields=bearing(signed(sub="bob", realm={"roles": ["admin"]}))) == b"403"
        assert asker.status(fields=expired) == b"401"
    finally:
        mesh.apply(rules + policy(OF_ALICE), delete=True)
    wait_until(lambda: asker.status(fields=expired) == b"200", "tokens are nobody's business again")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_keys_are_fetched_where_the_rule_says_and_not_at_our_own_machine(
    mesh: Mesh, waypoint: Waypoint, family
) -> None:
    issuer, asker = mesh.listen("shop/outsider"), TokenAsker(mesh, family)
    own = authentication(ISSUER_RULE % "jwksUri: 'http://127.0.0.1:15000/config_dump'")
    mesh.apply(own)
    try:
        wait_until(lambda: asker.status(fields=bearing(signed())) == b"401", "tokens are looked at")
        assert asker.body == b"Jwks doesn't have any valid public key"
        waypoint.grows("ztunnel_control_issuers_without_keys", 1)
        said = "127.0.0.1 is 127.0.0.1, which may not be asked (ZTUNNEL_JWKS_ALLOWED)"
        wait_until(lambda: said in waypoint.laboratory.pod_log(waypoint.pod.full_name), "the log says it")
        address = mesh.address("shop/outsider", family)
        host = f"[{address}]" if ":" in address else address
        mesh.apply(authentication(ISSUER_RULE % f"jwksUri: 'http://{host}:{issuer.port}/keys'"))
        there = issuer.accept()
        head = head_of(there)
        assert head.startswith(b"GET /keys HTTP/1.1\r\nhost: " + f"{host}:{issuer.port}".encode()), head
        keys = jwks(jwk("EdDSA")).encode()
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(keys), keys))
        wait_until(lambda: asker.status(fields=bearing(signed())) == b"200", "the keys are there")
        assert b"\r\nx-user: alice\r\n" in asker.head
    finally:
        mesh.apply(own, delete=True)


def test_a_websocket_ends_when_its_token_expires(mesh: Mesh, waypoint: Waypoint) -> None:
    rules = authentication(ISSUER_RULE % f"jwks: '{jwks(jwk('EdDSA'))}'")
    mesh.apply(rules)
    asker = TokenAsker(mesh, IPv6Address)
    try:
        wait_until(lambda: asker.status(fields=bearing(b"x.y.z")) == b"401", "tokens are looked at")
        waypoint.settle(mesh)
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
        skew, left = 60, 2
        text = signed(exp=time.time() - skew + left)
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + bearing(text)
            + b"\r\n"
        )
        there = asker.listener.accept()
        head_of(there)
        there.sendall(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head_of(client)
        client.sendall(b"on")
        assert read_exactly(there, 2) == b"on"
        assert is_refused(client)
        assert is_refused(there)
        line = waypoint.line()
        assert line[1:5] == ["GET /ws HTTP/1.1", "101", "-", "jwt_authn_access_denied{Jwt_is_expired}"], line
    finally:
        mesh.apply(rules, delete=True)


def limits(spec: str) -> str:
    return (
        "apiVersion: ztunnel.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: p, namespace: shop}\n"
        f"spec: {{targetRefs: [{{kind: Service, group: '', name: web}}], {spec}}}\n---\n"
    )


PER_USER = (
    "xRateLimitHeaders: DraftVersion03, local: {rules: [{name: per user, limit: {requests: 3, unit: Day}, "
    "clientSelectors: [{headers: [{name: x-user, type: Distinct}]}]}]}"
)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_whoever_asks_too_often_is_refused(mesh: Mesh, waypoint: Waypoint, family) -> None:
    asker = TokenAsker(mesh, family)

    def ask(user: bytes) -> bytes:
        return asker.status(fields=b"X-User: %b\r\n" % user)

    mesh.apply(limits(PER_USER))
    try:
        wait_until(lambda: ask(b"nobody") == b"429", "requests are counted")
        waypoint.settle(mesh)
        for user in (b"alice", b"bob"):
            assert [ask(user) for _ in range(5)] == [b"200"] * 3 + [b"429"] * 2
        assert asker.body == b"local_rate_limited"
        for field in (b"x-envoy-ratelimited: true", b"x-ratelimit-limit: 3", b"x-ratelimit-remaining: 0"):
            assert b"\r\n%b\r\n" % field in asker.answer
        line = waypoint.line(10)
        assert line[1:5] == ["GET /x HTTP/1.1", "429", "RL", "local_rate_limited"], line
        assert line[6] == "rate limit shop/p per user", line
        waypoint.grows("istio_requests_total", 4, response_code="429", response_flags="RL")
        waypoint.grows("ztunnel_waypoint_rate_limited_total", 4, policy="shop/p", scope="local")
    finally:
        mesh.apply(limits(PER_USER), delete=True)
    wait_until(lambda: ask(b"alice") == b"200", "nobody counts")


class GrpcInPod:
    """A server of grpcio's in the pod `where`."""

    where = "shop/outsider"

    def __init__(self, mesh: Mesh, port: int, name: str, **handlers: grpc.RpcMethodHandler) -> None:
        self.pool = ThreadPoolExecutor(16)
        self.server = grpc.server(self.pool)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.listener = mesh.listen(self.where, port=port)
        self.listener.sock.settimeout(None)
        self.pool.submit(self.relay)

    def relay(self) -> None:
        """What comes to the pod goes to the server."""
        with suppress(OSError):  # until the listener is shut
            while True:
                there = self.listener.accept()
                here = self.listener.keep(socket.create_connection(("127.0.0.1", self.port)))
                for each in (there, here):
                    each.settimeout(None)
                self.pool.submit(pump, here, there)
                self.pool.submit(pump, there, here)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.sock.shutdown(socket.SHUT_RDWR)
        self.server.stop(None).wait()
        self.pool.shutdown()


class LimitService(GrpcInPod):
    """Of each path so many requests pass."""

    def __init__(self, mesh: Mesh, most: int) -> None:
        self.seen: dict[str, int] = {}
        self.most = most
        handler = grpc.unary_unary_rpc_method_handler(
            self.decide, pb.RateLimitRequest.FromString, pb.RateLimitResponse.SerializeToString
        )
        super().__init__(mesh, 8082, "envoy.service.ratelimit.v3.RateLimitService", ShouldRateLimit=handler)

    def decide(self, request: pb.RateLimitRequest, _context: object) -> pb.RateLimitResponse:
        assert request.domain == "shop"
        ((entry,),) = (one.entries for one in request.descriptors)
        assert entry.key == "PATH"
        self.seen[entry.value] = self.seen.get(entry.value, 0) + request.hits_addend
        codes = pb.RateLimitResponse.Code
        over = self.seen[entry.value] > self.most
        return pb.RateLimitResponse(overall_code=codes.OVER_LIMIT if over else codes.OK, raw_body=b"slow")


def pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while part := one.recv(65536):
            other.sendall(part)
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def test_a_service_counts_for_all(mesh: Mesh, waypoint: Waypoint) -> None:
    asker = TokenAsker(mesh, IPv4Address)
    entries = "descriptors: [{entries: [{type: Path, key: PATH}]}]"
    asks = "global: {host: limits.shop.svc.cluster.local, port: 80, domain: shop, timeout: 5s, %s%s}"
    rules = service("limits", "{name: grpc, port: 80, targetPort: 8082}", labels="", app="outsider")
    denies = limits(asks % ("failureModeDeny: true, ", entries))
    mesh.apply(rules + denies)
    serving = None
    try:
        wait_until(lambda: asker.status() == b"500", "nobody answers, and nobody passes")
        waypoint.settle(mesh)
        assert asker.status() == b"500"
        line = waypoint.line()
        assert line[1:5] == ["GET /x HTTP/1.1", "500", "RLSE", "rate_limiter_error"], line
        mesh.apply(limits(asks % ("", entries)))
        wait_until(lambda: asker.status() == b"200", "or everybody passes")
        serving = LimitService(mesh, 3)
        wait_until(lambda: asker.status() == b"429", "it counts")
        assert serving.seen["/x"] == 4
        waypoint.settle(mesh)
        assert asker.status() == b"429"
        assert asker.body == b"slow"
        assert b"\r\nx-envoy-ratelimited: true\r\n" in asker.answer
        line = waypoint.line()
        assert line[1:5] == ["GET /x HTTP/1.1", "429", "RL", "request_rate_limited"], line
        waypoint.grows("ztunnel_waypoint_rate_limit_checks_total", 1, policy="shop/p", outcome="over_limit")
        waypoint.grows("ztunnel_waypoint_rate_limited_total", 1, policy="shop/p", scope="global")
    finally:
        if serving is not None:
            serving.close()
        mesh.apply(rules + denies, delete=True)
    wait_until(lambda: asker.status() == b"200", "nobody counts")


PROVIDERS = """apiVersion: v1
kind: ConfigMap
metadata: {name: ztunnel-mesh, namespace: ztunnel-system}
data:
  mesh: |
    extensionProviders:
    - name: sample-ext-authz-http
      envoyExtAuthzHttp:
        service: asks-http.shop.svc.cluster.local
        port: 8000
        timeout: 5s
        includeRequestHeadersInCheck: [x-ext-authz]
        headersToUpstreamOnAllow: [x-ext-authz-check-result]
        headersToDownstreamOnDeny: [x-ext-authz-check-result]
    - name: sample-ext-authz-grpc
      envoyExtAuthzGrpc:
        service: asks-grpc.shop.svc.cluster.local
        port: 9000
        timeout: 5s
        includeRequestBodyInCheck: {maxRequestBytes: 1000, packAsBytes: true}
---
"""
AUTHORIZERS = (
    PROVIDERS
    + service("asks-http", "{name: http, port: 8000, targetPort: 8083}", labels="")
    + service("asks-grpc", "{name: grpc, port: 9000, targetPort: 8084}", labels="", app="outsider")
)
RESULT, ALLOWS = "x-ext-authz-check-result", b"X-Ext-Authz: allow\r\n"
NOT_FOUND = b"denied by ext_authz for not found header `x-ext-authz: allow` in the request"


def custom(provider: str) -> str:
    asks = policy("{}", action="CUSTOM")
    return asks.replace("action: CUSTOM", f"action: CUSTOM, provider: {{name: sample-ext-authz-{provider}}}")


class HttpAuthorizer:
    """Istio's sample, over HTTP, in a pod of the mesh: `x-ext-authz: allow` is let through."""

    def __init__(self, mesh: Mesh) -> None:
        self.listener = mesh.listen("shop/server", port=8083)
        self.head = b""
        self.open: list[socket.socket] = []
        self.pool = ThreadPoolExecutor(4)
        self.pool.submit(self.accept)

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                there = self.listener.accept()
                there.settimeout(None)
                self.open.append(there)
                self.pool.submit(self.answer, there)

    def answer(self, there: socket.socket) -> None:
        with there, suppress(OSError, AssertionError):
            while True:
                self.head = head_of(there)
                allowed = b"x-ext-authz: allow\r\n" in self.head
                body = b"" if allowed else NOT_FOUND
                status, result = (b"200 OK", "allowed") if allowed else (b"403 Forbidden", "denied")
                said = f"{RESULT}: {result}\r\nx-ext-authz-check-received: all".encode()
                there.sendall(
                    b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (status, len(body), said, body)
                )

    def close(self) -> None:
        for each in (self.listener.sock, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.pool.shutdown()


AUTHORIZATION = "envoy.service.auth.v3.Authorization"


def checks(check: Callable[[ext_authz_pb2.CheckRequest, object], ext_authz_pb2.CheckResponse]) -> object:
    """What an external authorizer of gRPC answers by."""
    return grpc.unary_unary_rpc_method_handler(
        check,
        ext_authz_pb2.CheckRequest.FromString,
        ext_authz_pb2.CheckResponse.SerializeToString,
    )


class GrpcAuthorizer(GrpcInPod):
    """The same over gRPC, outside of the mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.asked = ext_authz_pb2.AttributeContext()
        super().__init__(mesh, 8084, AUTHORIZATION, Check=checks(self.check))

    def check(self, request: ext_authz_pb2.CheckRequest, _context: object) -> ext_authz_pb2.CheckResponse:
        self.asked = request.attributes
        allowed = self.asked.request.http.headers.get("x-ext-authz") == "allow"
        header = {"header": {"key": RESULT, "value": "allowed" if allowed else "denied"}}
        if allowed:
            return ext_authz_pb2.CheckResponse(ok_response={"headers": [header]})
        denied = {"status": {"code": 403}, "body": NOT_FOUND.decode(), "headers": [header]}
        return ext_authz_pb2.CheckResponse(status={"code": 7}, denied_response=denied)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_external_authorizers_decide_over_http_and_grpc(mesh: Mesh, waypoint: Waypoint, family) -> None:
    asker = TokenAsker(mesh, family)
    over_http, over_grpc = HttpAuthorizer(mesh), GrpcAuthorizer(mesh)
    try:
        for kind, more in (("http", AUTHORIZERS), ("grpc", "")):
            provider = f"sample-ext-authz-{kind}"
            mesh.apply(more + custom(kind))
            wait_until(lambda: asker.status() == b"403" and asker.body == NOT_FOUND, "it is asked")
            waypoint.settle(mesh)
            assert asker.status() == b"403"
            assert f"\r\n{RESULT}: denied\r\n".encode() in asker.answer
            assert b"check-received" not in asker.answer
            line = waypoint.line()
            assert line[1:5] == ["GET /x HTTP/1.1", "403", "UAEX", "ext_authz_denied"], line
            assert asker.status(fields=ALLOWS + f"{RESULT}: forged\r\n".encode()) == b"200"
            assert f"\r\n{RESULT}: allowed\r\n".encode() in asker.head
            assert b"forged" not in asker.head
            waypoint.grows("ztunnel_waypoint_ext_authz_total", 1, provider=provider, outcome="denied")
            waypoint.grows("ztunnel_waypoint_ext_authz_total", 1, provider=provider, outcome="allowed")
        assert over_http.head.startswith(b"GET /x HTTP/1.1\r\nhost: a\r\n")
        assert over_grpc.asked.source.principal == account("shop/caller")
        assert over_grpc.asked.destination.principal == account("shop/wp")
        client = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
        near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        near.initiate_connection()
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"web"), (b":path", b"/a/B")]
        near.send_headers(1, [*fields, (b"content-type", b"application/grpc"), (b"te", b"trailers")])
        near.send_data(1, b"\0\0\0\0\2b\xff", end_stream=True)
        client.sendall(near.data_to_send())
        told = exchange(client, near, h2.events.StreamEnded)
        (answer,) = [each for each in told if isinstance(each, h2.events.ResponseReceived)]
        assert (b"grpc-status", b"7") in answer.headers
        asked = over_grpc.asked.request.http
        assert (asked.path, asked.protocol, asked.raw_body) == ("/a/B", "HTTP/2", b"\0\0\0\0\2b\xff")
        over_grpc.close()
        wait_until(lambda: asker.status(fields=ALLOWS) == b"403", "nobody answers, and nobody passes")
        wait_until(lambda: waypoint.lines()[-1][3:5] == ["UAEX", "ext_authz_error"], "the log says so")
    finally:
        over_http.close()
        over_grpc.close()
        mesh.apply(AUTHORIZERS + custom("grpc"), delete=True)
    wait_until(lambda: asker.status() == b"200", "nobody is asked")


def test_what_nobody_can_be_asked_about_is_refused(mesh: Mesh, waypoint: Waypoint) -> None:
    asker = TokenAsker(mesh, IPv4Address)
    mesh.apply(custom("http"))
    try:
        wait_until(lambda: asker.status() == b"403", "it is refused")
        assert asker.body == b"RBAC: access denied"
        wait_until(lambda: waypoint.lines()[-1][2:4] == ["403", "UAEX"], "it is logged")
        line = waypoint.lines()[-1]
        assert "there is no provider of the name 'sample-ext-authz-http' (extensionProviders)" in line, line
    finally:
        mesh.apply(custom("http"), delete=True)
    wait_until(lambda: asker.status() == b"200", "it is served again")


def test_nobody_gets_around_a_waypoint_that_is_not_there(mesh: Mesh, waypoint: Waypoint) -> None:
    """Attached is refused while it is away, and served again when it is back."""
    listener = server(mesh)
    laboratory = mesh.laboratory
    cgroup = laboratory.names.pod_cgroup(waypoint.pod.node.name, waypoint.pod.uid)
    run.send(cgroup, signal.SIGKILL)
    wait.until_gone(cgroup)
    try:
        for family in TCP_FAMILIES:
            assert mesh.call("shop/caller", vip(mesh, "web", family), 80).refused
            assert mesh.call("shop/caller", vip(mesh, "rows", family), 5432).refused
        assert listener.nobody()
    finally:
        started = run.start_pod(laboratory.names, waypoint.pod)
        laboratory._children += [each.process for each in started]
    wait_until(partial(answers, mesh, IPv4Address), "it is back")
