"""Requests go where VirtualServices and HTTPRoutes send them, and to the endpoints that DestinationRules
leave: by real objects, through a real waypoint."""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.mesh.answering import Accepting
from tests.mesh.lab import SHOP, TCP_FAMILIES, Listener, Mesh, is_refused, read_exactly, wait_until
from tests.mesh.test_waypoint import GATEWAY, OUTSIDER, Waypoint, exchange, head_of, service, vip
from tests.waypoint.tls_server import Authority
from ztunnel.demo.call import get

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def server_pod(name: str, labels: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n"
        "spec:\n  nodeName: node-2\n  containers: [{name: main, command: [sleep, infinity]}]\n---\n"
    )


VIRTUAL_SERVICE = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - name: jason
    match: [{name: user, headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: web, subset: v2}, headers: {request: {set: {x-subset: v2}}}}]
  - name: rewritten
    match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /new/, authority: inner.shop}
    headers: {response: {set: {x-by: "%ROUTE_NAME%"}, remove: [server]}}
    route: [{destination: {host: web, subset: v1}}]
  - name: faulty
    match: [{uri: {exact: /fault}}]
    fault:
      delay: {percentage: {value: 100}, fixedDelay: 0.3s}
      abort: {percentage: {value: 100}, httpStatus: 555}
    route: [{destination: {host: web}}]
  - name: slow
    match: [{uri: {exact: /slow}}]
    timeout: 0.3s
    route: [{destination: {host: web, subset: v1}}]
  - name: again
    match: [{uri: {exact: /again}}]
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: web}}]
  - name: mirrored
    match: [{uri: {exact: /mirrored}}]
    route: [{destination: {host: web, subset: v1}}]
    mirrors: [{destination: {host: web, subset: v2}, percentage: {value: 100}}]
  - name: shared
    match: [{uri: {exact: /shared}, method: {exact: GET}}]
    corsPolicy: {allowOrigins: [{exact: "https://a.b"}], allowMethods: [GET], maxAge: 60s}
    route: [{destination: {host: web, subset: v1}}]
  - name: socket
    match: [{uri: {exact: /socket}}]
    timeout: 0.2s
    route: [{destination: {host: web, subset: v1}}]
  - name: teapot
    match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - name: unknown
    match: [{uri: {exact: /unknown}}]
    route: [{destination: {host: web, subset: v9}}]
---
"""
HTTP_ROUTE = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: ReplacePrefixMatch,
      replacePrefixMatch: /here}}}]
  - matches: [{path: {type: PathPrefix, value: /web}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: Exact, value: /broken}}]
    backendRefs: [{name: nobody, port: 80}]
---
"""
CONNECTIONS = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rows, namespace: shop}
spec:
  hosts: [rows]
  tcp:
  - match: [{port: 5432, destinationSubnets: [0.0.0.0/0, "::/0"]}]
    route: [{destination: {host: web, subset: v2, port: {number: 80}}}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: rows, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: rows, port: 5433}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
---
"""
GRPC_ROUTE = """apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: calls}]
  rules:
  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [{name: calls, port: 80}]
---
"""
MANIFESTS = (
    SHOP
    + GATEWAY
    + server_pod("one", "app: server, version: v1")
    + server_pod("two", "app: server, version: v2")
    + service("web", "{name: http, port: 80, targetPort: 8081}")
    + service(
        "api", "{name: http, port: 80, targetPort: 8081}, {name: http-other, port: 90, targetPort: 8081}"
    )
    + service(
        "rows",
        "{name: tcp, port: 5432, targetPort: 9}, {name: tcp-b, port: 5433, targetPort: 8081}, "
        "{name: tcp-c, port: 5434, targetPort: 8081}",
    )
    + server_pod("alone", "app: alone")
    + service("weak", "{name: http, port: 80, targetPort: 8082}")
    + service("narrow", "{name: http, port: 80, targetPort: 8081}", app="alone")
    + service("sealed", "{name: http, port: 80, targetPort: 8443}", app="alone")
    + service("shown", "{name: http, port: 80, targetPort: 8444}", app="alone")
    + service("listed", "{name: http, port: 80, targetPort: 8445}", app="alone")
    + service("blind", "{name: http, port: 80, targetPort: 8446}", app="alone")
    + OUTSIDER
    + service("plain", "{name: http, port: 80, targetPort: 8081}", app="outsider")
    + service("free", "{name: http, port: 80, targetPort: 8081}")
    + VIRTUAL_SERVICE
    + HTTP_ROUTE
    + CONNECTIONS
    + service("calls", "{name: grpc, port: 80, targetPort: 8081}")
    + GRPC_ROUTE
)


def destination_rule(host: str, traffic: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {host}-traffic, namespace: shop}}\n"
        f"spec: {{host: {host}, trafficPolicy: {{{traffic}}}}}\n---\n"
    )


class Answering(Accepting):
    """A server that answers every request of every connection with `status`, and counts them."""

    def __init__(self, listener: Listener, status: str) -> None:
        self.status = status
        self.count = 0
        super().__init__(listener)

    def serve(self, sock: socket.socket, number: int) -> None:
        while True:
            head_of(sock)
            self.count += 1
            sock.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())


class Client:
    """A client's connection that says one request after the other."""

    def __init__(self, mesh: Mesh, name: str = "web", port: int = 80, family: type = IPv4Address) -> None:
        self.sock = mesh.connect("shop/caller", vip(mesh, name, family), port)
        self.name = name

    def ask(self, path: str, *fields: str, method: str = "GET") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.name}", *fields, "", ""]
        self.sock.sendall("\r\n".join(lines).encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = head_of(self.sock).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), fields, read_exactly(self.sock, int(fields.get("content-length", 0)))


def serve(sock: socket.socket, status: str = "200 OK", *fields: str, body: str = "") -> str:
    """Read one request's head, and answer."""
    head = head_of(sock).decode()
    answer = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", body]
    sock.sendall("\r\n".join(answer).encode())
    return head


class Servers:
    """Both versions of the server."""

    def __init__(self, mesh: Mesh) -> None:
        self.v1 = mesh.listen("shop/one", port=8081)
        self.v2 = mesh.listen("shop/two", port=8081)

    def either(self) -> tuple[socket.socket, Listener]:
        """A connection that either of them accepts, and the other one."""
        for listener in (self.v1, self.v2):
            listener.sock.setblocking(False)

        def accepted() -> tuple[socket.socket, Listener] | None:
            for one, other in ((self.v1, self.v2), (self.v2, self.v1)):
                try:
                    sock = one.accept()
                except BlockingIOError:
                    continue
                sock.settimeout(10)
                return sock, other
            return None

        found = wait_until(accepted, "one of the servers is called")
        for listener in (self.v1, self.v2):
            listener.sock.settimeout(10)
        return found


@pytest.fixture
def servers(mesh: Mesh) -> Servers:
    return Servers(mesh)


@pytest.fixture
def waypoint(mesh: Mesh) -> Waypoint:
    made = Waypoint(mesh)

    def teapot() -> bool:
        call = mesh.call("shop/caller", vip(mesh, "web", IPv4Address), 80)
        return call.error is None

    wait_until(teapot, "the waypoint is known")
    made.settle(mesh)
    return made


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_header_chooses_the_subset(mesh: Mesh, waypoint: Waypoint, servers: Servers, family: type) -> None:
    client = Client(mesh, family=family)
    client.ask("/reviews", "end-user: jason")
    assert "\r\nx-subset: v2\r\n" in serve(servers.v2.accept())
    assert client.answer()[0] == 200
    line = waypoint.line()
    assert line[1:5] == ["GET /reviews HTTP/1.1", "200", "-", "via_upstream"], line
    assert line[-1] == "jason.user", line
    assert "inbound-vip|80|http/v2|web.shop.svc.cluster.local" in line
    waypoint.grows("istio_requests_total", 1, destination_workload="two", response_code="200")


def test_a_rewritten_request_is_another_one_for_its_server(
    mesh: Mesh, waypoint: Waypoint, servers: Servers
) -> None:
    client = Client(mesh)
    client.ask("/old/a?b=c")
    head = serve(servers.v1.accept(), "200 OK", "Server: hidden")
    assert head.startswith("GET /new/a?b=c HTTP/1.1\r\nhost: inner.shop\r\n"), head
    assert "\r\nx-envoy-original-path: /old/a?b=c\r\n" in head
    _, fields, _ = client.answer()
    assert fields["x-by"] == "rewritten"
    assert "server" not in fields
    assert waypoint.line()[1] == "GET /old/a?b=c HTTP/1.1"


def test_faults_time_and_answers_of_ours(mesh: Mesh, waypoint: Waypoint, servers: Servers) -> None:
    client = Client(mesh)
    began = time.monotonic()
    client.ask("/fault")
    assert client.answer()[::2] == (555, b"fault filter abort")
    assert time.monotonic() - began >= 0.3
    assert waypoint.line(1)[2:5] == ["555", "DI,FI", "fault_filter_abort"]
    client.ask("/teapot")
    assert client.answer()[::2] == (418, b"short and stout")
    assert waypoint.line(2)[2:5] == ["418", "-", "direct_response"]
    client.ask("/none")
    assert client.answer()[0] == 404
    assert waypoint.line(3)[2:5] == ["404", "NR", "route_not_found"]
    client.ask("/unknown")
    assert client.answer()[0] == 503
    assert waypoint.line(4)[2:5] == ["503", "NC", "cluster_not_found"]
    client.ask("/slow")
    slow = servers.v1.accept()
    head_of(slow)
    assert client.answer()[::2] == (504, b"upstream request timeout")
    assert waypoint.line(5)[2:5] == ["504", "UT", "upstream_response_timeout"]
    assert is_refused(slow)  # its server hears that nobody waits any more


def test_a_failure_is_tried_again_at_another_endpoint(
    mesh: Mesh, waypoint: Waypoint, servers: Servers
) -> None:
    client = Client(mesh)
    client.ask("/again", "Content-Length: 3", method="POST")
    client.sock.sendall(b"abc")
    first, other = servers.either()
    assert head_of(first).startswith(b"POST /again HTTP/1.1\r\n")
    assert read_exactly(first, 3) == b"abc"
    first.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    second = other.accept()
    assert head_of(second).startswith(b"POST /again HTTP/1.1\r\n")
    assert read_exactly(second, 3) == b"abc"
    second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.answer()[0] == 200
    assert waypoint.line()[2:4] == ["200", "-"]


def test_a_mirror_sees_what_its_server_sees_and_is_not_heard(
    mesh: Mesh, waypoint: Waypoint, servers: Servers
) -> None:
    client = Client(mesh)
    client.ask("/mirrored")
    assert "\r\nhost: web-shadow\r\n" in serve(servers.v2.accept(), "500 No", body="nobody hears it")
    assert "\r\nhost: web\r\n" in serve(servers.v1.accept(), body="hello")
    assert client.answer()[::2] == (200, b"hello")
    assert waypoint.line()[2:4] == ["200", "-"]
    waypoint.grows("istio_requests_total", 1, response_code="200")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_an_http_route_redirects_rewrites_and_refuses(
    mesh: Mesh, waypoint: Waypoint, servers: Servers, family: type
) -> None:
    client = Client(mesh, "api", family=family)
    client.ask("/moved/a?b=c")
    status, fields, _ = client.answer()
    assert (status, fields["location"]) == (302, "https://api/here/a?b=c")
    client.ask("/broken")
    assert client.answer()[0] == 500
    assert waypoint.line(2)[3:5] == ["NC", "cluster_not_found"]
    client.ask("/nothing")
    assert client.answer()[0] == 404
    client.ask("/web/a")
    sock, _ = servers.either()
    assert serve(sock).startswith("GET /a HTTP/1.1\r\n")
    assert client.answer()[0] == 200
    web = {"destination_service": "web.shop.svc.cluster.local", "response_code": "200"}
    waypoint.grows("istio_requests_total", 1, **web)


def test_a_port_that_no_route_is_for_is_served_as_before(
    mesh: Mesh, waypoint: Waypoint, servers: Servers
) -> None:
    client = Client(mesh, "api", 90, IPv6Address)
    client.ask("/anything")
    sock, _ = servers.either()
    serve(sock)
    assert client.answer()[0] == 200
    assert waypoint.line()[-1] == "default"


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_connections_that_are_no_http_go_where_their_rules_say(
    mesh: Mesh, waypoint: Waypoint, servers: Servers, family: type
) -> None:
    client = mesh.connect("shop/caller", vip(mesh, "rows", family), 5432)
    there = servers.v2.accept()
    there.sendall(b"from v2")
    assert read_exactly(client, 7) == b"from v2"
    assert servers.v1.nobody()
    client.close()
    refused = mesh.call("shop/caller", vip(mesh, "rows", family), 5433)
    assert isinstance(refused.error, ConnectionRefusedError)
    plain = mesh.connect("shop/caller", vip(mesh, "rows", family), 5434)
    sock, _ = servers.either()
    sock.sendall(b"as before")
    assert read_exactly(plain, 9) == b"as before"


def test_a_change_of_routes_holds_for_the_next_request_of_a_connection(
    mesh: Mesh, waypoint: Waypoint, servers: Servers
) -> None:
    client = Client(mesh)
    client.ask("/teapot")
    assert client.answer()[0] == 418
    mesh.apply(VIRTUAL_SERVICE.replace("status: 418", "status: 419"))

    def status() -> bool:
        client.ask("/teapot")
        return client.answer()[0] == 419

    wait_until(status, "the new route counts")
    mesh.apply(VIRTUAL_SERVICE)


def test_a_page_of_another_origin_may_read_it(mesh: Mesh, waypoint: Waypoint, servers: Servers) -> None:
    client = Client(mesh)
    client.ask("/shared", "Origin: https://a.b", "Access-Control-Request-Method: GET", method="OPTIONS")
    status, fields, _ = client.answer()
    assert (status, fields["access-control-allow-origin"]) == (200, "https://a.b")
    assert (fields["access-control-allow-methods"], fields["access-control-max-age"]) == ("GET", "60")
    assert waypoint.line(1)[4] == "cors_response"
    client.ask("/shared", "Origin: https://a.b")
    there = servers.v1.accept()
    serve(there, "200 OK", "Access-Control-Allow-Origin: *")
    assert client.answer()[1]["access-control-allow-origin"] == "https://a.b"
    client.ask("/shared", "Origin: https://evil")
    serve(there, "200 OK", "X-Mine: 1")
    assert "access-control-allow-origin" not in client.answer()[1]


def test_a_websocket_outlives_the_time_of_its_rule(mesh: Mesh, waypoint: Waypoint, servers: Servers) -> None:
    client = Client(mesh)
    client.ask("/socket", "Connection: upgrade", "Upgrade: websocket")
    there = servers.v1.accept()
    assert b"upgrade: websocket" in head_of(there).lower()
    there.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert head_of(client.sock).startswith(b"HTTP/1.1 101 ")
    client.sock.sendall(b"ping")
    assert read_exactly(there, 4) == b"ping"
    quiet_until = time.monotonic() + 0.5  # more than twice the time of the rule
    wait_until(lambda: time.monotonic() > quiet_until, "time passes")
    there.sendall(b"pong")
    assert read_exactly(client.sock, 4) == b"pong"


def test_calls_of_grpc_are_known_by_their_methods(mesh: Mesh, waypoint: Waypoint, servers: Servers) -> None:
    sock = mesh.connect("shop/caller", vip(mesh, "calls", IPv6Address), 80)
    near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    near.initiate_connection()
    for stream, path in ((1, b"/shop.Cart/Remove"), (3, b"/shop.Cart/Add")):
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"calls"), (b":path", path)]
        near.send_headers(stream, [*fields, (b"content-type", b"application/grpc"), (b"te", b"trailers")])
        near.send_data(stream, b"question", end_stream=True)
    sock.sendall(near.data_to_send())
    there, _ = servers.either()
    far = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    far.initiate_connection()
    asked = exchange(there, far, h2.events.StreamEnded)
    (request,) = [each for each in asked if isinstance(each, h2.events.RequestReceived)]
    assert (b":path", b"/shop.Cart/Add") in request.headers
    far.send_headers(request.stream_id, [(b":status", b"200"), (b"grpc-status", b"0")], end_stream=True)
    there.sendall(far.data_to_send())
    told: dict[int, bytes] = {}
    while len(told) < 2:
        for each in exchange(sock, near, h2.events.StreamEnded):
            if isinstance(each, h2.events.ResponseReceived):
                told[each.stream_id] = dict(each.headers)[b"grpc-status"]
    assert told == {1: b"12", 3: b"0"}


def test_an_endpoint_that_fails_is_left_out_for_a_while(mesh: Mesh, waypoint: Waypoint) -> None:
    outliers = "consecutive5xxErrors: 2, interval: 0.3s, baseEjectionTime: 2s, maxEjectionPercent: 100"
    mesh.apply(destination_rule("weak", f"outlierDetection: {{{outliers}}}"))
    client = Client(mesh, "weak")

    def status() -> int:
        client.ask("/")
        return client.answer()[0]

    with (
        closing(Answering(mesh.listen("shop/one", port=8082), "503 Weak")) as weak,
        closing(Answering(mesh.listen("shop/two", port=8082), "200 OK")) as well,
    ):
        wait_until(lambda: knows_traffic(waypoint, "weak"), "the waypoint knows of it")
        wait_until(lambda: status() == 503, "it fails once")
        wait_until(lambda: status() == 503, "and once more")
        before = weak.count
        assert [status() for _ in range(20)] == [200] * 20
        assert weak.count == before
        weak.status = "200 OK"
        wait_until(lambda: status() == 200 and weak.count > before, "it is asked again")
        assert well.count
    waypoint.grows("ztunnel_waypoint_ejections_total", 1)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_more_than_may_wait_for_a_connection_are_refused_at_once(
    mesh: Mesh, waypoint: Waypoint, family: type
) -> None:
    limits = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}"
    mesh.apply(destination_rule("narrow", limits))
    listener = mesh.listen("shop/alone", port=8081)
    clients = [Client(mesh, "narrow", family=family) for _ in range(3)]
    wait_until(lambda: knows_traffic(waypoint, "narrow"), "the waypoint knows of the limits")
    clients[0].ask("/first")
    there = listener.accept()
    head_of(there)
    clients[1].ask("/second")
    clients[2].ask("/third")
    (first,) = wait_until(lambda: [one for one in clients[1:] if readable(one.sock)], "one is refused")
    status, fields, body = first.answer()
    assert (status, fields["x-envoy-overloaded"]) == (503, "true")
    assert b"reset reason: overflow" in body
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert clients[0].answer()[0] == 200
    serve(there)  # who waited comes on the same connection
    (other,) = (one for one in clients[1:] if one is not first)
    assert other.answer()[0] == 200
    assert listener.nobody()
    wait_until(
        lambda: "UO" in [line[3] for line in waypoint.lines() if line[1].split()[1] in ("/second", "/third")],
        "it is logged",
    )
    waypoint.grows("ztunnel_waypoint_overflows_total", 1, limit="pending")


def knows_traffic(waypoint: Waypoint, host: str) -> bool:
    """Whether the waypoint has been sent policies for that host."""
    dump = json.loads(get(waypoint.netns, 15000, "/config_dump")[1])
    return any(host in each["service"] for each in dump["trafficPolicies"])


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_a_server_of_tls_is_talked_to_where_it_is_proved(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    tls = f"tls: {{mode: SIMPLE, sni: a.example, caCertificates: {authority.roots}}}"
    mesh.apply(destination_rule("sealed", tls))
    listener = mesh.listen("shop/alone", port=8443)
    client = Client(mesh, "sealed")
    wait_until(lambda: knows_traffic(waypoint, "sealed"), "the waypoint knows of it")
    client.ask("/sealed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "a.example"))
    with context.wrap_socket(listener.accept(), server_side=True) as there:
        assert "GET /sealed HTTP/1.1" in serve(there, body="secret")
        assert client.answer()[::2] == (200, b"secret")
    client.ask("/stranger")
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(*stranger.issue("other", "a.example"))
    assert "certificate was refused" in refusal(listener, client, other)


def refusal(listener: Listener, client: Client, context: ssl.SSLContext) -> str:
    """Why the waypoint does not talk to a server with that context."""
    for _ in range(3):  # Istio's two retries of what was not sent
        with suppress(OSError), context.wrap_socket(listener.accept(), server_side=True):
            pass
        if readable(client.sock):
            break
    status, _, body = client.answer()
    assert status == 503
    return body.decode()


def test_a_server_whose_certificate_is_revoked_is_not_talked_to(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    """By the list in the Secret of the rule; another list counts from the next connection on."""
    authority, contexts = Authority(tmp_path), []
    for serial in (11, 12):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(*authority.issue(f"s{serial}", "a.example", serial=serial))
    mesh.apply(destination_rule("listed", "tls: {mode: SIMPLE, sni: a.example, credentialName: listed}"))
    listener = mesh.listen("shop/alone", port=8445)
    for serial, good, bad in ((12, *contexts), (11, *contexts[::-1])):
        revoked = authority.revoke(serial)
        mesh.apply(secret("listed", cacert=authority.roots, crl=revoked))
        text = Path(revoked).read_text()
        wait_until(lambda text=text: shown(waypoint, "listed").get("revoked") == text, "the waypoint has it")
        client = Client(mesh, "listed", family=IPv6Address)
        client.ask("/good")
        with good.wrap_socket(listener.accept(), server_side=True) as there:
            serve(there, "200 OK", "Connection: close", body="hi")
            assert client.answer()[::2] == (200, b"hi")
        client.ask("/bad")
        assert "certificate revoked" in refusal(listener, client, bad)


def test_a_server_that_need_not_be_proved_may_be_anybody(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    mesh.apply(destination_rule("blind", "tls: {mode: SIMPLE, sni: a.example, insecureSkipVerify: true}"))
    listener = mesh.listen("shop/alone", port=8446)
    wait_until(lambda: knows_traffic(waypoint, "blind"), "the waypoint knows of it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path, "stranger").issue("other", "b.example"))
    client = Client(mesh, "blind")
    client.ask("/")
    with context.wrap_socket(listener.accept(), server_side=True) as there:
        serve(there, body="secret")
        assert client.answer()[::2] == (200, b"secret")


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_servers_outside_are_asked_whether_they_are_there_as_their_rule_says(
    mesh: Mesh, waypoint: Waypoint, family: type
) -> None:
    mesh.apply(destination_rule("plain", "connectionPool: {tcp: {tcpKeepalive: {time: 50s, interval: 7s}}}"))
    wait_until(lambda: knows_traffic(waypoint, "plain"), "the waypoint knows of it")
    listener, client = mesh.listen("shop/outsider", port=8081), Client(mesh, "plain", family=family)
    client.ask("/")
    there = listener.accept()
    serve(there)
    assert client.answer()[0] == 200
    port = there.getpeername()[1]

    def timer() -> re.Match[str] | None:
        """The kernel's, of the waypoint's connection."""
        listing = ["ss", "-tnoH", "state", "established", f"( sport = :{port} )"]
        run = ["nsenter", f"--net={waypoint.netns}", *listing]
        found = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        return re.search(r"timer:\(keepalive,([0-9]+)(?:\.[0-9]+)?sec,0\)", found)

    assert 40 <= int(wait_until(timer, "it has been quiet")[1]) <= 50


def of_every_host(host: str, status: int) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: every, namespace: shop}\n"
        f"spec: {{hosts: ['{host}'], http: [{{name: every, directResponse: {{status: {status}}}}}]}}\n---\n"
    )


def test_a_rule_for_every_host_counts_behind_those_for_some_requests(
    mesh: Mesh, waypoint: Waypoint, applied: Callable[[str], None]
) -> None:
    client, own = Client(mesh, "free", family=IPv6Address), Client(mesh)

    def status(of: Client, path: str) -> int:
        of.ask(path)
        return of.answer()[0]

    assert status(own, "/none") == 404
    applied(of_every_host("*", 430))
    wait_until(lambda: status(client, "/") == 430, "it counts for a service without rules")
    wait_until(lambda: waypoint.lines()[-1][-1] == "every", "the log names it")
    assert (status(own, "/teapot"), status(own, "/none")) == (418, 430)
    mesh.apply(of_every_host("*.shop.svc.cluster.local", 431))
    wait_until(lambda: status(client, "/") == 431, "it is of every host of the namespace now")
    mesh.apply(of_every_host("*.elsewhere.example", 432))
    wait_until(lambda: status(own, "/none") == 404, "it is of others now")


def secret(name: str, **paths: str) -> str:
    """As `kubectl create secret generic` makes it, of files."""
    data = {key: Path(path).read_text() for key, path in paths.items()}
    meta = {"name": name, "namespace": "shop"}
    return (
        json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}) + "\n---\n"
    )


def test_a_server_is_shown_the_certificate_of_a_secret_and_another_one_once_that_has_changed(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", "a.example"))
    server.load_verify_locations(authority.roots)
    server.verify_mode = ssl.CERT_REQUIRED
    mesh.apply(destination_rule("shown", "tls: {mode: MUTUAL, sni: a.example, credentialName: sealed}"))
    listener = mesh.listen("shop/alone", port=8444)
    wait_until(lambda: knows_traffic(waypoint, "shown"), "the waypoint knows of it")
    client = Client(mesh, "shown")
    client.ask("/none")
    status, _, body = client.answer()
    assert (status, b"there is no Secret shop/sealed" in body) == (503, True)
    while not listener.nobody():  # each try, given up
        pass
    for name in ("first", "second"):
        certificate, key = authority.issue(name, f"{name}.example")
        mesh.apply(secret("sealed", cert=certificate, key=key, cacert=authority.roots))
        text = Path(certificate).read_text()
        wait_until(
            lambda text=text: shown_credential(waypoint) == (text, "<redacted>"), "the waypoint has it"
        )
        client = Client(mesh, "shown")
        client.ask(f"/{name}")
        with server.wrap_socket(listener.accept(), server_side=True) as there:
            assert f"GET /{name} HTTP/1.1" in serve(there, "200 OK", "Connection: close", body="hi")
            assert (there.getpeercert() or {})["subjectAltName"] == (("DNS", f"{name}.example"),)
            assert client.answer()[::2] == (200, b"hi")


def shown_credential(waypoint: Waypoint) -> tuple[str, str]:
    """What the waypoint shows of the Secret of servers that are sealed."""
    one = shown(waypoint, "sealed")
    return one.get("certificate", ""), one.get("privateKey", "")


def shown(waypoint: Waypoint, name: str) -> dict[str, str]:
    """What the waypoint shows of what it was sent of a Secret."""
    dump = json.loads(get(waypoint.netns, 15000, "/config_dump")[1])
    return next((dict(one) for one in dump["credentials"] if one["name"] == name), {})
