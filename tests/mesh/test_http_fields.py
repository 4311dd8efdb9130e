"""Every field of the policies of a waypoint, through real processes: tables of what is asked, and of what is
attached."""

from __future__ import annotations

import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import grpc
import h2.connection
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.documented.cases import SIGMAS
from tests.l7.issuers import ISSUER, b64, claims, jwk, jwks, key_of, token
from tests.l7.issuers import part as encoded
from tests.mesh.answering import Accepting, Http2
from tests.mesh.lab import SHOP, TCP_FAMILIES, Family, Listener, Mesh, read_exactly, wait_until
from tests.mesh.test_routes import shown
from tests.mesh.test_traces import COLLECTOR
from tests.mesh.test_waypoint import (
    AUTHORIZATION,
    GATEWAY,
    SERVER,
    GrpcInPod,
    Waypoint,
    checks,
    head_of,
    pump,
    service,
    vip,
)
from tests.waypoint.tls_server import Authority
from ztunnel.demo.call import get
from ztunnel.waypoint.reporting.otlp import LOGS, TRACES
from ztunnel.xds.pb import ext_authz_pb2

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MESH = """apiVersion: v1
kind: ConfigMap
metadata: {name: ztunnel-mesh, namespace: ztunnel-system}
data:
  mesh: |
    pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
    extensionProviders:
    - name: text
      envoyFileAccessLog: {logFormat: {text: "text %REQ(:PATH)% %RESPONSE_CODE% %RESP(X-NONE)%\\n"}}
    - name: labels
      envoyFileAccessLog:
        path: /dev/stdout
        logFormat: {labels: {path: "%REQ(:PATH)%", none: "%REQ(X-NONE)%", code: "%RESPONSE_CODE%"}}
        omitEmptyValues: true
    - name: als
      envoyOtelAls: {service: collector.shop.svc.cluster.local, port: 4317, logName: mine,
                     logFormat: {text: "%REQ(:METHOD)% here", labels: {code: "%RESPONSE_CODE%"}}}
    - name: otel
      opentelemetry: {service: collector.shop.svc.cluster.local, port: 4317, maxTagLength: 20,
                      resource_detectors: {environment: {}},
                      grpc: {initialMetadata: [{name: x-tenant, value: mine}]}}
    - name: asks-begin
      envoyExtAuthzHttp:
        service: asks.shop.svc.cluster.local
        port: 8000
        timeout: 0.3s
        failOpen: true
        pathPrefix: /check
        includeRequestHeadersInCheck: [x-seen*]
        includeAdditionalHeadersInCheck: {x-added: always}
        includeRequestBodyInCheck: {maxRequestBytes: 4, allowPartialMessage: true}
        headersToUpstreamOnAllow: [x-up]
        clearRouteCache: true
        headersToDownstreamOnAllow: [x-down, set-cookie]
        headersToDownstreamOnDeny: [x-deny*, set-cookie]
    - name: asks-whole
      envoyExtAuthzHttp:
        service: asks.shop.svc.cluster.local
        port: 8000
        timeout: 0.3s
        statusOnError: "503"
        includeRequestBodyInCheck: {maxRequestBytes: 16}
    - name: grpc-begin
      envoyExtAuthzGrpc:
        service: shop/asks.shop.svc.cluster.local
        port: 9000
        timeout: 0.3s
        failOpen: true
        clearRouteCache: true
        includeRequestBodyInCheck: {maxRequestBytes: 4, allowPartialMessage: true}
    - name: grpc-whole
      envoyExtAuthzGrpc:
        service: asks.shop.svc.cluster.local
        port: 9000
        timeout: 0.3s
        statusOnError: "503"
        includeRequestBodyInCheck: {maxRequestBytes: 4, packAsBytes: true}
    - name: zipkin
      zipkin:
        service: spans.shop.svc.cluster.local
        port: 9411
        path: /mine
        timeout: 0.5s
        headers: [{name: x-tenant, value: mine}, {name: x-where, envName: POD_NAMESPACE}]
        enable64bitTraceId: true
        maxTagLength: 5
    - name: both
      zipkin: {service: spans.shop.svc.cluster.local, port: 9411,
               traceContextOption: USE_B3_WITH_W3C_PROPAGATION}
    - name: otel-http
      opentelemetry:
        service: spans.shop.svc.cluster.local
        port: 9411
        http: {path: /otlp, timeout: 5s, headers: [{name: x-tenant, value: other}]}
        serviceAttributeEnrichment: OTEL_SEMANTIC_CONVENTIONS
---
"""
ENTRY = """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec:
  hosts: [entry.example]
  addresses: [240.9.9.9, "2001:db8:9::9"]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8081}]
  workloadSelector: {labels: {app: server}}
---
"""
SHARED = """apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: infra, labels: {istio.io/waypoint-for: all}}
spec:
  gatewayClassName: ztunnel-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector,
     selector: {matchLabels: {shared: "yes"}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: nothing, namespace: shop, labels: {istio.io/waypoint-for: none}}
spec:
  gatewayClassName: istio-waypoint
  addresses: [{type: Hostname, value: wp.shop.svc.cluster.local}]
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
"""
USE_SHARED = "istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra"


def space(name: str, labels: str) -> str:
    return (
        "apiVersion: v1\nkind: Namespace\n"
        f"metadata: {{name: {name}, labels: {{istio.io/dataplane-mode: ambient, {labels}}}}}\n---\n"
    )


def pod(where: str, labels: str = "") -> str:
    namespace, _, name = where.partition("/")
    return SERVER.replace("name: server,", f"name: {name},").replace(
        "namespace: shop, labels: {app: server}", f"namespace: {namespace}, labels: {{app: {name}{labels}}}"
    )


def attached(where: str, app: str, labels: str = "") -> str:
    namespace, _, name = where.partition("/")
    return service(name, "{name: http, port: 80, targetPort: 8081}", labels, app).replace(
        "namespace: shop", f"namespace: {namespace}"
    )


SOLO = """apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: pods, namespace: solo, labels: {istio.io/waypoint-for: workload}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
"""
PASSED = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: passed, namespace: edge}
spec: {host: passed, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}
---
"""
ELSEWHERE = (
    SHARED
    + space("solo", "istio.io/use-waypoint: pods")
    + SOLO
    + pod("solo/one")
    + space("infra", "a: b")
    + space("edge", f'shared: "yes", {USE_SHARED}')
    + space("far", "a: b")
    + pod("edge/app", ", passed: by")
    + pod("edge/alone", f", passed: by, {USE_SHARED}")
    + attached("edge/passed", "x").replace("app: x", "passed: by")
    + PASSED
    + pod("far/app")
    + attached("edge/inherits", "app")
    + attached("edge/out", "app", "istio.io/use-waypoint: none")
    + attached(
        "edge/missing", "app", "istio.io/use-waypoint: nowhere, istio.io/use-waypoint-namespace: infra"
    )
    + attached("far/refused", "app", USE_SHARED)
    + attached("shop/nobodys", "server", "istio.io/use-waypoint: nothing")
)
MANIFESTS = (
    SHOP
    + GATEWAY
    + ELSEWHERE
    + SERVER
    + MESH
    + ENTRY
    + COLLECTOR
    + service("collector", "{name: grpc, port: 4317, targetPort: 4317}", labels="", app="collector")
    + service(
        "asks",
        "{name: http, port: 8000, targetPort: 8000}, {name: grpc, port: 9000, targetPort: 9000}",
        labels="",
        app="collector",
    )
    + service("spans", "{name: http, port: 9411, targetPort: 9411}", labels="", app="collector")
    + service("web", "{name: http, port: 80, targetPort: 8081}")
    + service("empty", "{name: http, port: 80, targetPort: 8081}", app="nobody")
    + service("closed", "{name: http, port: 80, targetPort: 8099}")
    + service("denied", "{name: http, port: 80, targetPort: 8081}")
    + service("proved", "{name: http, port: 80, targetPort: 8081}")
)
ENVIRONMENT = {
    "ZTUNNEL_TRUSTED_PROXIES": "1",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=lab",
    "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL": "500ms",
}


class Server(Accepting):
    """Answers every request with what `respond` makes of its head and body: the head; but for `/held`, and
    for `/fails/N/...`, of which the first N tries fail.

    Attributes:
        tries: when each path was asked for.
    """

    def __init__(self, listener: Listener) -> None:
        self.tries: dict[bytes, list[float]] = {}
        super().__init__(listener)

    def respond(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        tries = self.tries.setdefault(path, [])
        tries.append(time.monotonic())
        if path.startswith(b"/fails/") and len(tries) <= int(path.split(b"/")[2]):
            return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
        if b" /held " in head:
            return b""
        if b" /own " in head:
            return b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head)

    def serve(self, sock: socket.socket, number: int) -> None:
        while True:
            head = head_of(sock)
            length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r")[0]
            sock.sendall(self.respond(head, read_exactly(sock, int(length or b"0"))))


@pytest.fixture
def server(mesh: Mesh) -> Iterator[Server]:
    made = Server(mesh.listen("shop/server", port=8081))
    yield made
    made.close()


@pytest.fixture
def waypoint(mesh: Mesh, server: Server) -> Waypoint:
    def known() -> bool:
        call = mesh.call("shop/caller", vip(mesh, "web", IPv4Address), 80)
        return call.error is None

    wait_until(known, "the waypoint is known")
    return Waypoint(mesh)


class Ask(NamedTuple):
    """A request."""

    path: str = "/"
    method: str = "GET"
    host: str = "web"
    fields: tuple[str, ...] = ()
    body: str = ""

    @property
    def octets(self) -> bytes:
        more = [f"Content-Length: {len(self.body)}"] if self.body else []
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host}", *self.fields, *more]
        return "\r\n".join([*lines, "", self.body]).encode()


class Answer(NamedTuple):
    """A response."""

    status: int
    head: str
    body: str


def is_answered(client: socket.socket, asked: Sequence[Ask], statuses: Sequence[int]) -> bool:
    """Whether these are the answers by now."""
    return [one.status for one in answers(client, asked)] == list(statuses)


def answers(client: socket.socket, asked: Sequence[Ask]) -> list[Answer]:
    """Ask all of it at once, as a client that pipelines does."""
    client.sendall(b"".join(each.octets for each in asked))
    found = []
    for _ in asked:
        head = head_of(client).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
        found.append(Answer(int(head.split()[1]), head, read_exactly(client, length).decode()))
    return found


def said(answer: Answer, name: str) -> list[str]:
    """The values of a field of its head."""
    lines = (line.partition(": ") for line in answer.head.split("\r\n"))
    return [value for each, _, value in lines if each == name]


def with_token(text: bytes, *more: str) -> tuple[str, ...]:
    return f"Authorization: Bearer {text.decode()}", *more


def signed(issuer: str = ISSUER, algorithm: str = "EdDSA", kid: str = "k1", **more: Any) -> bytes:
    """A token that is good for ten minutes."""
    made = claims(**{"iss": issuer, "iat": None, "exp": int(time.time()) + 600, **more})
    return token(made, algorithm, kid)


# --- AuthorizationPolicies

ALICE = with_token(
    signed(aud=["shop"], azp="app", group="admins", scope="read write", nested={"roles": ["a", "b"]})
)
BOB = with_token(signed(sub="bob", aud="bank", azp="robot", group="users", scope="read"))
Case = tuple[str, Ask, bool]


def source(text: str) -> str:
    return f"from: [{{source: {{{text}}}}}]"


def when(key: str, text: str) -> str:
    return f"when: [{{key: '{key}', {text}}}]"


def either(part: str, yes: Ask, no: Ask) -> tuple[Case, Case]:
    """A part of a rule that one request matches, and another one does not."""
    return (part, yes, True), (part, no, False)


def whatever(part: str, other: str, ask: Ask = Ask()) -> tuple[Case, Case]:  # noqa: B008 (a tuple)
    """Two parts, of which a request matches the first."""
    return (part, ask, True), (other, ask, False)


def cases(own: Sequence[str], called: Sequence[str]) -> list[Case]:
    """`own` are the caller's addresses, `called` the service's, as YAML has them in a list."""
    at, to, far = ", ".join(own), ", ".join(called), "192.0.2.0/24, 'fd99::/16'"
    behind = Ask(fields=("X-Forwarded-For: 198.51.100.7, 10.9.9.9",))
    v6 = Ask(fields=("X-Forwarded-For: 2001:db8::7, 10.9.9.9",))
    ported = Ask(fields=("X-Forwarded-For: 198.51.100.7:4711, 10.9.9.9",))
    token_a, token_b, free = Ask(fields=ALICE), Ask(fields=BOB), Ask()
    x, y = Ask(fields=("X-A: v",)), Ask(fields=("X-A: w",))
    pairs = [
        whatever(source("principals: ['cluster.local/ns/shop/sa/caller']"), source("principals: ['*/sa/x']")),
        whatever(source("notPrincipals: ['*/sa/x']"), source("notPrincipals: ['cluster.local/ns/shop/*']")),
        whatever(source("namespaces: [shop]"), source("namespaces: [out]")),
        whatever(source("notNamespaces: [out]"), source("notNamespaces: ['s*']")),
        whatever(source("serviceAccounts: [caller]"), source("serviceAccounts: [out/caller]")),
        whatever(source("notServiceAccounts: [x]"), source("notServiceAccounts: [shop/caller]")),
        whatever(source("trustDomains: ['*.local']"), source("trustDomains: [other]")),
        whatever(source("notTrustDomains: [other]"), source("notTrustDomains: [cluster.local]")),
        whatever(source(f"ipBlocks: [{at}]"), source(f"ipBlocks: [{far}]")),
        whatever(source(f"notIpBlocks: [{far}]"), source(f"notIpBlocks: [{at}]")),
        either(source("remoteIpBlocks: [198.51.100.0/24, '2001:db8::/32']"), behind, free),
        either(source("remoteIpBlocks: ['2001:db8::7']"), v6, behind),
        either(source("remoteIpBlocks: [198.51.100.7]"), ported, v6),
        either(source("notRemoteIpBlocks: [198.51.100.7]"), v6, behind),
        either(source(f"requestPrincipals: ['{ISSUER}/alice']"), token_a, token_b),
        either(source("requestPrincipals: ['*']"), token_b, free),
        either(source("notRequestPrincipals: ['*/bob']"), token_a, token_b),
        whatever("ports: ['80']", "ports: ['8081']"),
        whatever("notPorts: ['8081']", "notPorts: ['80']"),
        either("methods: [PUT, 'D*']", Ask(method="DELETE"), Ask(method="GET")),
        either("notMethods: [GET]", Ask(method="PUT"), Ask()),
        either("hosts: ['*.example', 'a.b']", Ask(host="X.Example"), Ask(host="example")),
        either("hosts: ['a.b']", Ask(host="A.B"), Ask(host="a.b.c")),
        either("notHosts: ['a.*']", Ask(host="b.a"), Ask(host="a.b")),
        either(when("request.headers[X-A]", "values: ['v', 'u*']"), x, y),
        either(when("request.headers[x-a]", "notValues: [v]"), y, x),
        either(when("request.headers[x-a]", "values: ['*']"), x, free),
        whatever(when("source.ip", f"values: [{at}]"), when("source.ip", f"notValues: [{at}]")),
        whatever(when("source.namespace", "values: [shop]"), when("source.namespace", "values: [x]")),
        whatever(when("source.principal", "values: ['*/caller']"), when("source.principal", "values: [x]")),
        whatever(when("source.serviceAccount", "values: [caller]"),
                 when("source.serviceAccount", "notValues: [caller]")),
        whatever(when("source.trustDomain", "values: [cluster.local]"),
                 when("source.trustDomain", "values: [x]")),
        either(when("remote.ip", "values: [198.51.100.7]"), behind, v6),
        whatever(when("destination.ip", f"values: [{to}]"), when("destination.ip", f"values: [{far}]")),
        whatever(when("destination.port", "values: ['80']"), when("destination.port", "notValues: ['80']")),
        whatever(when("connection.sni", "notValues: [x]"), when("connection.sni", "values: [x]")),
        either(when("request.auth.principal", "values: ['*/alice']"), token_a, token_b),
        either(when("request.auth.audiences", "values: [shop]"), token_a, token_b),
        either(when("request.auth.presenter", "values: ['ap*']"), token_a, token_b),
        either(when("request.auth.claims[group]", "values: [admins]"), token_a, token_b),
        either(when("request.auth.claims[scope]", "values: [write]"), token_a, token_b),
        either(when("request.auth.claims[nested][roles]", "values: [b]"), token_a, token_b),
        either(when("request.auth.claims[group]", "notValues: [admins]"), token_b, token_a),
    ]  # fmt: skip
    return [each for pair in pairs for each in pair]


PATHS = [
    ("/exact", "/exact?x=1", "/exact/"),
    ("/begin*", "/beginning/and/more", "/begi"),
    ("*.html", "/a/b.html", "/a/b.htm"),
    ("/one/{*}/end", "/one/x/end", "/one/x/y/end"),
    ("/any/{**}", "/any/x/y", "/any"),
    ("/merged/a", "//merged///a", "/merged/b"),
    ("/decoded/a", "/decoded%2Fa", "/decoded%2F..%2Fa"),
    ("/dots/a", "/x/%2e%2e/dots/./a", "/dots/a/.."),
]
"""A pattern, a path that it matches, and one that it does not."""


def policy(name: str, rules: str, target: str, action: str = "ALLOW", **more: str) -> str:
    kind, _, whose = target.partition(" ")
    group = {
        "Gateway": "gateway.networking.k8s.io",
        "GatewayClass": "gateway.networking.k8s.io",
        "ServiceEntry": "networking.istio.io",
    }.get(kind, "")
    where = "istio-system" if kind == "GatewayClass" else "shop"
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {where}, annotations: {{{more.get('annotations', '')}}}}}\n"
        f'spec: {{targetRefs: [{{kind: {kind}, group: "{group}", name: {whose}}}], action: {action}, '
        f"rules: [{rules}]}}\n---\n"
    )


def numbered(made: Sequence[Case]) -> tuple[str, list[Ask]]:
    """Rules that are each for a path of their own, and the requests about them."""
    rules, asked = [], []
    for number, (part, ask, _) in enumerate(made):
        paths = f"paths: ['/{number}/*']"
        is_operation = not part.startswith(("from", "when"))
        to = f"to: [{{operation: {{{paths}{', ' + part if is_operation else ''}}}}}]"
        rules.append(f"{{{to}{'' if is_operation else ', ' + part}}}")
        asked.append(ask._replace(path=f"/{number}{ask.path}"))
    return ", ".join(rules), asked


def authentication(rules: str, *services: str) -> str:
    targets = ", ".join(f'{{kind: Service, group: "", name: {name}}}' for name in services)
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: jwt, namespace: shop}\n"
        f"spec: {{targetRefs: [{targets}], jwtRules: [{rules}]}}\n---\n"
    )


KEYS = f"jwks: '{jwks(jwk('EdDSA'))}'"


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_rules_match_by_each_of_their_fields(mesh: Mesh, waypoint: Waypoint, family: Family) -> None:
    """What an ALLOW lets through a DENY of the same rules refuses, and the other way round."""
    own, called = (
        tuple(f"'{address}'" for address in addresses)
        for addresses in (
            [mesh.address("shop/caller", each) for each in TCP_FAMILIES],
            [vip(mesh, name, each) for name in ("web", "denied") for each in TCP_FAMILIES],
        )
    )
    made = cases(own, called)
    rules, asked = numbered(made)
    expected = [each for _, _, each in made]
    for pattern, yes, no in PATHS:
        rules += f", {{to: [{{operation: {{paths: ['{pattern}'], notPaths: ['/never*', '/any/z/*']}}}}]}}"
        asked += [Ask(yes), Ask(no)]
        expected += [True, False]
    asked.append(Ask("/any/z/y"))
    expected.append(False)
    texts = authentication(f"{{issuer: '{ISSUER}', {KEYS}}}", "web", "denied")
    texts += policy("allow", rules, "Service web") + policy("deny", rules, "Service denied", "DENY")
    mesh.apply(texts)
    try:
        bad = Ask(fields=with_token(b"x.y.z"))
        for name, matched in (("web", 200), ("denied", 403)):
            client = mesh.connect("shop/caller", vip(mesh, name, family), 80)
            signs, told = [bad, Ask("/never"), asked[0]], [401, 603 - matched, matched]
            wait_until(partial(is_answered, client, signs, told), "the rules are there")
            found = [one.status for one in answers(client, asked)]
            wanted = [matched if each else 603 - matched for each in expected]
            wrong = [
                (made[number][0] if number < len(made) else asked[number].path, found[number])
                for number in range(len(asked))
                if found[number] != wanted[number]
            ]
            assert wrong == [], name
    finally:
        mesh.apply(texts, delete=True)


def test_what_is_tried_or_audited_passes_and_is_counted(mesh: Mesh, waypoint: Waypoint) -> None:
    dry = "istio.io/dry-run: 'true'"
    only = "{to: [{operation: {paths: ['/%s']}}]}"
    texts = (
        policy("dry-deny", only % "dry", "Service web", "DENY", annotations=dry)
        + policy("dry-allow", only % "dry", "Service web", annotations=dry)
        + policy("audit", only % "audit", "Service web", "AUDIT")
    )
    mesh.apply(texts)
    try:
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)

        def seen() -> bool:
            assert answers(client, [Ask("/audit")])[0].status == 200
            return waypoint.figures().total("ztunnel_policy_audits_total", policy="shop/audit") > 0

        wait_until(seen, "the policies are there")
        assert [one.status for one in answers(client, [Ask("/dry"), Ask("/other")])] == [200, 200]
        name = "ztunnel_policy_dry_run_total"
        waypoint.grows(name, 1, policy="shop/dry-deny", result="denied")
        waypoint.grows(name, 1, policy="shop/dry-allow", result="allowed")
    finally:
        mesh.apply(texts, delete=True)


class Authorizer(Server):
    """Denies `/no`, says nothing of `/slow`; `asked`: heads and bodies."""

    def __init__(self, mesh: Mesh) -> None:
        self.asked: list[tuple[str, bytes]] = []
        super().__init__(mesh.listen("shop/collector", port=8000))

    def respond(self, head: bytes, body: bytes) -> bytes:
        self.asked.append((head.decode(), body))
        if b"/slow" in head:
            return b""
        if b"/no" in head:
            return b"HTTP/1.1 401 No\r\nX-Deny-Why: so\r\nX-Other: o\r\nContent-Length: 2\r\n\r\nno"
        cookies = b"Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 0\r\n\r\n"
        if b"/login" in head:
            return b"HTTP/1.1 302 Found\r\nLocation: https://idp.example/?rd=%2F\r\n" + cookies
        return b"HTTP/1.1 200 OK\r\nX-Up: u\r\nX-Down: d\r\nX-Other: o\r\n" + cookies


BY_AUTHORIZER = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-authorizer, namespace: shop}
spec:
  parentRefs: [{kind: Service, group: "", name: web}]
  rules:
  - matches: [{headers: [{name: x-up, value: u}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-routed, value: again}]}}]
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]
---
"""


def test_an_authorizer_is_asked_as_each_field_of_its_provider_says(mesh: Mesh, waypoint: Waypoint) -> None:
    authorizer = Authorizer(mesh)
    asks = policy("asks", "{}", "Service web", "CUSTOM, provider: {name: asks-begin}")
    try:
        mesh.apply(asks + BY_AUTHORIZER)
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
        wait_until(partial(is_answered, client, [Ask("/no")], [401]), "it is asked")

        def routed_by_what_it_says() -> bool:
            return "x-routed: again" in answers(client, [Ask("/ok")])[0].body

        wait_until(routed_by_what_it_says, "it decides where the request goes")
        forged = ("X-Seen-It: yes", "X-Unseen: no", "X-Added: forged", "X-Up: forged")
        (passed,) = answers(client, [Ask("/ok?q=1", "POST", "web", forged, "0123456789")])
        head, body = authorizer.asked[-1]
        assert head.startswith("POST /check/ok?q=1 HTTP/1.1\r\n")
        assert ("x-seen-it: yes" in head, "x-unseen" in head) == (True, False)
        assert ("x-added: always" in head, "forged" in head) == (True, False)
        assert ("x-envoy-auth-partial-body: true" in head, body) == (True, b"0123")
        assert passed.status == 200
        assert ("x-up: u" in passed.body, "X-Up: forged" in passed.body) == (True, False)
        assert "x-other" not in passed.body
        assert ("x-down: d" in passed.head, "x-other" in passed.head) == (True, False)
        (denied,) = answers(client, [Ask("/no")])
        assert (denied.status, denied.body) == (401, "no")
        assert ("x-deny-why: so" in denied.head, "x-other" in denied.head) == (True, False)
        # As oauth2-proxy sets them (istio/istio#43533, #36950).
        own, login = answers(client, [Ask("/own"), Ask("/login")])
        cookies = ["a=1", "b=2; Path=/"]
        assert sorted(said(own, "set-cookie")) == [*cookies, "own=1"]
        assert (login.status, sorted(said(login, "set-cookie"))) == (302, cookies)
        assert said(login, "location") == ["https://idp.example/?rd=%2F"]
        (slow,) = answers(client, [Ask("/slow")])
        assert (slow.status, "x-up" in slow.body) == (200, False)
        mesh.apply(asks.replace("asks-begin", "asks-whole"))
        wait_until(partial(is_answered, client, [Ask("/slow")], [503]), "the other one is asked")
        grpc_client = Http2(mesh, vip(mesh, "web", IPv6Address), 80)
        refused = grpc_client.ask("POST", "/slow", "web", {"content-type": "application/grpc+x"})
        assert (refused.fields["grpc-status"], refused.told) == ("14", None)  # envoyproxy/envoy#32476
        (short,) = answers(client, [Ask("/ok", "POST", body="0123")])
        assert (short.status, "x-up" in short.body) == (200, False)
        assert authorizer.asked[-1][0].startswith("POST /ok HTTP/1.1\r\n")
        assert authorizer.asked[-1][1] == b"0123"
        (denied,) = answers(client, [Ask("/no")])
        assert ("x-deny-why: so" in denied.head, "x-other: o" in denied.head) == (True, True)
        (long,) = answers(client, [Ask("/ok", "POST", body="0" * 17)])
        assert long.status == 413
    finally:
        mesh.apply(asks + BY_AUTHORIZER, delete=True)
        authorizer.close()


class GrpcAuthorizer(GrpcInPod):
    """The same over gRPC."""

    where = "shop/collector"

    def __init__(self, mesh: Mesh) -> None:
        self.asked: list[Any] = []
        self.over = Event()
        super().__init__(mesh, 9000, AUTHORIZATION, Check=checks(self.check))

    def check(self, request: ext_authz_pb2.CheckRequest, _context: object) -> ext_authz_pb2.CheckResponse:
        http = request.attributes.request.http
        self.asked.append(http)
        if http.path == "/slow":
            self.over.wait()
        header = {"header": {"key": "x-up", "value": "u"}}
        if http.path == "/no":
            denied = {"status": {"code": 401}, "body": "no", "headers": [header]}
            return ext_authz_pb2.CheckResponse(status={"code": 16}, denied_response=denied)
        ok = {"headers": [header], "headers_to_remove": ["x-gone"], "response_headers_to_add": [header]}
        ok["query_parameters_to_set"] = [{"key": "q", "value": "2"}]
        return ext_authz_pb2.CheckResponse(ok_response=ok)

    def close(self) -> None:
        self.over.set()
        super().close()


def test_so_is_one_of_grpc(mesh: Mesh, waypoint: Waypoint) -> None:
    authorizer = GrpcAuthorizer(mesh)
    asks = policy("asks", "{}", "Service web", "CUSTOM, provider: {name: grpc-begin}")
    try:
        mesh.apply(asks + BY_AUTHORIZER)
        client = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
        wait_until(partial(is_answered, client, [Ask("/no")], [401]), "it is asked")

        def routed_by_what_it_says() -> bool:
            return "x-routed: again" in answers(client, [Ask("/ok")])[0].body

        wait_until(routed_by_what_it_says, "it decides where the request goes")
        fields = ("X-Gone: g", "X-Up: forged", "X-Envoy-Auth-Partial-Body: forged")
        (passed,) = answers(client, [Ask("/ok?q=1", "POST", "web", fields, "0123456789")])
        asked = authorizer.asked[-1]
        assert (asked.body, asked.raw_body, asked.size) == ("0123", b"", 10)
        assert asked.headers["x-envoy-auth-partial-body"] == "true"
        assert (asked.headers[":path"], asked.headers["x-gone"]) == ("/ok?q=1", "g")
        assert passed.body.startswith("POST /ok?q=2 HTTP/1.1")
        assert ("x-up: u" in passed.body, "forged" in passed.body) == (True, False)
        assert ("x-gone" in passed.body, "x-up: u" in passed.head) == (False, True)
        (denied,) = answers(client, [Ask("/no")])
        assert (denied.status, denied.body, "x-up: u" in denied.head) == (401, "no", True)
        (slow,) = answers(client, [Ask("/slow")])
        assert (slow.status, "x-envoy-auth-failure-mode-allowed: true" in slow.body) == (200, True)
        mesh.apply(asks.replace("grpc-begin", "grpc-whole"))
        wait_until(partial(is_answered, client, [Ask("/slow")], [503]), "the other one is asked")
        wait_until(lambda: waypoint.lines()[-1][3:5] == ["UAEX", "ext_authz_error"], "the log says why")
        (short,) = answers(client, [Ask("/ok", "POST", body="0123")])
        assert (short.status, authorizer.asked[-1].raw_body, authorizer.asked[-1].body) == (200, b"0123", "")
        assert authorizer.asked[-1].headers["x-envoy-auth-partial-body"] == "false"
        count = len(authorizer.asked)
        (long,) = answers(client, [Ask("/ok", "POST", body="01234")])
        assert (long.status, len(authorizer.asked)) == (413, count)
    finally:
        mesh.apply(asks + BY_AUTHORIZER, delete=True)
        authorizer.close()


class TlsAuthorizer(Authorizer):
    """The first one, behind TLS."""

    def __init__(self, mesh: Mesh, context: ssl.SSLContext) -> None:
        self.context = context
        super().__init__(mesh)

    def serve(self, sock: socket.socket, number: int) -> None:
        if not sock.recv(1, socket.MSG_PEEK):  # who has nothing to prove itself by says nothing
            return
        wrap = partial(self.context.wrap_socket, server_side=True, do_handshake_on_connect=False)
        with wrap(sock) as inner:
            self._sockets.append(inner)
            inner.do_handshake()
            super().serve(inner, number)

    def cut(self) -> None:
        """End the connections that stand."""
        for each in self._sockets[1:]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


ASKS_TLS = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: asks, namespace: shop}
spec:
  host: asks.shop.svc.cluster.local
  trafficPolicy: {tls: {mode: MUTUAL, sni: asks.example, credentialName: asks}}
---
"""


def test_an_authorizer_is_called_by_the_secret_that_its_rule_names(
    mesh: Mesh, waypoint: Waypoint, tmp_path: Path
) -> None:
    """Without it nobody is asked; a server that it does not prove is told nothing."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("asks", "asks.example"))
    context.load_verify_locations(authority.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    authorizer = TlsAuthorizer(mesh, context)
    certificate, key = (Path(one).read_text() for one in authority.issue("wp", "wp.example"))

    def secret(roots: str, namespace: str = "shop") -> str:
        data = {"tls.crt": certificate, "tls.key": key, "ca.crt": Path(roots).read_text()}
        meta = {"name": "asks", "namespace": namespace}
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}
        return json.dumps(made) + "\n---\n"

    asks = policy("asks", "{}", "Service web", "CUSTOM, provider: {name: asks-whole}")
    of_pods = policy("asks", "{}", "Gateway pods", "CUSTOM, provider: {name: asks-whole}")
    of_pods = of_pods.replace("namespace: shop", "namespace: solo")
    one = Server(mesh.listen("solo/one", port=8081))
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    mesh.apply(ASKS_TLS + asks)
    try:
        wait_until(partial(is_answered, client, [Ask("/no")], [503]), "nobody can be asked")

        def why() -> bool:
            assert answers(client, [Ask("/no")])[0].status == 503
            return any("there is no Secret shop/asks" in " ".join(line) for line in waypoint.lines())

        wait_until(why, "the log says why")
        mesh.apply(secret(authority.roots))
        wait_until(partial(is_answered, client, [Ask("/no")], [401]), "it is asked")
        assert is_answered(client, [Ask("/ok")], [200])
        # So does a waypoint that only pods use, by the Secret of its own namespace.
        mesh.apply(secret(authority.roots, "solo") + of_pods)
        alone = mesh.connect("shop/caller", mesh.address("solo/one", IPv6Address), 8081)
        wait_until(partial(is_answered, alone, [Ask("/no"), Ask("/ok")], [401, 200]), "it is asked there")
        mesh.apply(secret(authority.roots, "solo") + of_pods, delete=True)
        count = len(authorizer.asked)
        mesh.apply(secret(stranger.roots))
        others = Path(stranger.roots).read_text()
        wait_until(
            lambda: shown(waypoint, "asks").get("roots") == others, "the waypoint has the other Secret"
        )
        authorizer.cut()  # the next connection is by that
        wait_until(partial(is_answered, client, [Ask("/ok")], [503]), "it is trusted no more")
        assert len(authorizer.asked) == count
    finally:
        mesh.apply(secret(authority.roots) + ASKS_TLS + asks, delete=True)
        authorizer.close()
        one.close()


@pytest.mark.parametrize("target", ["ServiceEntry entry", "GatewayClass istio-waypoint"])
def test_an_entry_stands_behind_a_waypoint_and_its_policies(
    mesh: Mesh, waypoint: Waypoint, target: str
) -> None:
    """`istio.io/use-waypoint` on a ServiceEntry; policies by targets beside Service and Gateway."""
    clients = [mesh.connect("shop/caller", address, 80) for address in ("240.9.9.9", "2001:db8:9::9")]
    for client in clients:
        (answer,) = answers(client, [Ask("/x", host="entry.example")])
        assert (answer.status, "x-request-id: " in answer.body) == (200, True), answer
    text = policy("p", "{to: [{operation: {methods: [PUT]}}]}", target)
    mesh.apply(text)
    try:
        for client in clients:
            wait_until(lambda by=client: answers(by, [Ask()])[0].status == 403, "it is refused")
            assert answers(client, [Ask(method="PUT")])[0].status == 200
    finally:
        mesh.apply(text, delete=True)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_what_stands_behind_which_waypoint(mesh: Mesh, waypoint: Waypoint, family: Family) -> None:
    """By labels of a namespace, a service and a pod, in the namespace of the Gateway and beyond, where that
    admits it and takes such calls; what is not attached is called as it is."""
    pods = "edge/app", "edge/alone", "far/app"
    servers = [Server(mesh.listen(each, port=8081)) for each in pods]

    def through(address: str, port: int = 80) -> bool | None:
        call = mesh.call("shop/caller", address, port)
        if call.error is not None:
            return None
        (answer,) = answers(call.sock, [Ask()])
        call.sock.close()
        return "x-request-id: " in answer.body

    def address(where: str) -> str:
        found = mesh.laboratory.service(where).addresses
        return str(next(ip for ip in found if isinstance(ip, family)))

    try:
        wait_until(lambda: through(address("edge/inherits")), "the other waypoint is known")
        found = {
            where: through(address(where))
            for where in ("shop/web", "edge/inherits", "edge/out", "far/refused", "shop/nobodys")
        }
        assert found == {
            "shop/web": True,
            "edge/inherits": True,
            "edge/out": False,
            "far/refused": False,
            "shop/nobodys": False,
        }
        assert through(address("edge/missing")) in (False, None)
        assert through(mesh.address("edge/alone", family), 8081) is True
        assert through(mesh.address("edge/app", family), 8081) is True  # by its namespace's label
        assert through(mesh.address("far/app", family), 8081) is False
    finally:
        for each in servers:
            each.close()


class Named(Server):
    """Says whose it is."""

    def __init__(self, mesh: Mesh, where: str) -> None:
        self.where = where
        super().__init__(mesh.listen(where, port=8081))

    def respond(self, head: bytes, body: bytes) -> bytes:
        fields = b"X-Pod: %b\r\nContent-Length: %d" % (self.where.encode(), len(head))
        return b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (fields, head)


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_with_passthrough_who_calls_a_pod_by_its_address_is_answered_by_that_one(
    mesh: Mesh, waypoint: Waypoint, family: Family
) -> None:
    """By any, who calls the service."""
    servers = [Named(mesh, where) for where in ("edge/app", "edge/alone")]
    addresses = mesh.laboratory.service("edge/passed").addresses
    service_address = str(next(ip for ip in addresses if isinstance(ip, family)))

    def answer_by(address: str, port: int, count: int = 1) -> set[str]:
        """Whose the answers are; nobody's where they come past the waypoint."""
        found = answers(mesh.connect("shop/caller", address, port), [Ask()] * count)
        return {said(one, "x-pod")[0] if "x-request-id: " in one.body else "" for one in found}

    try:
        wait_until(lambda: "" not in answer_by(service_address, 80), "the other waypoint is known")
        for one in servers:
            assert answer_by(mesh.address(one.where, family), 8081, 20) == {one.where}
        assert answer_by(service_address, 80, 40) == {one.where for one in servers}
    finally:
        for one in servers:
            one.close()


# --- what a route does to requests

ROUTED = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /abort}}]
    fault: {abort: {percentage: {value: 30}, httpStatus: 418}}
    route: [{destination: {host: web}}]
  - match: [{uri: {prefix: /delay}}]
    fault: {delay: {percentage: {value: 40}, fixedDelay: 10ms}}
    route: [{destination: {host: web}}]
  - retries: {attempts: 2, retryOn: 5xx, backoff: 200ms}
    route: [{destination: {host: web}}]
---
"""
LATE_SECONDS = 3.0
"""How late something may be on a busy machine."""

_IDS = count(1)


def fresh(path: str) -> Ask:
    """A request for a path that was not asked for yet."""
    return Ask(f"{path}/{next(_IDS)}")


def is_near(found: int, total: int, percent: float) -> bool:
    """Whether a share is within what chance makes of it."""
    share = percent / 100
    return abs(found - total * share) < SIGMAS * (total * share * (1 - share)) ** 0.5


def test_shares_of_requests_fail_wait_and_are_tried_again_after_a_while(
    mesh: Mesh, waypoint: Waypoint, server: Server, applied: Callable[[str], None]
) -> None:
    clients = [mesh.connect("shop/caller", vip(mesh, "web", each), 80) for each in TCP_FAMILIES]
    applied(ROUTED)
    wait_until(
        lambda: 418 in [one.status for one in answers(clients[0], [Ask("/abort")] * 10)], "it is known"
    )
    for client in clients:
        found = [one.status for one in answers(client, [Ask("/abort")] * 100)]
        assert set(found) == {200, 418}
        assert is_near(found.count(418), 100, 30), found.count(418)
        delayed = fresh("/delay").path
        assert {one.status for one in answers(client, [Ask(delayed)] * 60)} == {200}

        def flags(path: str = delayed) -> list[str]:
            return [line[3] for line in waypoint.lines() if f" {path} " in line[1]]

        wait_until(lambda: len(flags()) == 60, "they are logged")
        assert set(flags()) == {"DI", "-"}
        assert is_near(flags().count("DI"), 60, 40), flags().count("DI")
    asked = [fresh("/fails/2") for _ in range(24)]
    waiting = [
        mesh.connect("shop/caller", vip(mesh, "web", TCP_FAMILIES[number % 2]), 80)
        for number in range(len(asked))
    ]
    for client, each in zip(waiting, asked, strict=True):
        client.sendall(each.octets)
    assert all(head_of(client).startswith(b"HTTP/1.1 200 ") for client in waiting)
    waits = []
    for each in asked:
        first, second, third = server.tries[each.path.encode()]
        waits.append((second - first, third - second))
    # Each is a random part of 0.2 s, and of twice that; by default they would be of 25 and of 50 ms.
    assert 0.05 < max(first for first, _ in waits) < 0.2 + LATE_SECONDS, waits
    assert 0.2 < max(second for _, second in waits) < 0.4 + LATE_SECONDS, waits


def by_mesh(text: str) -> str:
    """The mesh config with more in it."""
    return MESH.replace("  mesh: |\n", f"  mesh: |\n    {text}\n")


def test_servers_are_called_as_the_mesh_config_says_where_nobody_else_does(
    mesh: Mesh, waypoint: Waypoint, server: Server
) -> None:
    clients = [mesh.connect("shop/caller", vip(mesh, "web", each), 80) for each in TCP_FAMILIES]
    lost = [mesh.connect("shop/caller", vip(mesh, "closed", each), 80) for each in TCP_FAMILIES]

    def each_is(path: str, status: int) -> bool:
        """Whether a request by each family is answered so by now."""
        return {answers(client, [fresh(path)])[0].status for client in clients} == {status}

    def nobody_there() -> set[str]:
        """The flags of requests to nobody."""
        asked = [fresh("/gone") for _ in lost]
        for client, each in zip(lost, asked, strict=True):
            assert answers(client, [each])[0].status == 503
        paths = {each.path for each in asked}

        def flags() -> list[str]:
            return [line[3] for line in waypoint.lines() if paths & {*line[1].split()}]

        return set(wait_until(lambda: found if len(found := flags()) == len(asked) else None, "logged"))

    try:
        assert nobody_there() == {"URX,UF"}
        assert each_is("/fails/1", 503)
        mesh.apply(by_mesh("defaultHttpRetryPolicy: {attempts: 1, retryOn: '503', backoff: 1ms}"))
        wait_until(lambda: each_is("/fails/1", 200), "failures are tried again")
        assert each_is("/fails/2", 503)
        mesh.apply(by_mesh("defaultHttpRetryPolicy: {attempts: 0}"))
        wait_until(lambda: each_is("/fails/1", 503), "and are not any more")
        assert nobody_there() == {"UF"}
        mesh.apply(by_mesh("defaultTrafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}"))

        def each_by_another() -> bool:
            """Whether each request has a connection of its own."""
            before = server.connections
            for client in clients:
                assert answers(client, [Ask()] * 3)[-1].status == 200
            return server.connections - before >= 5

        wait_until(each_by_another, "a connection is used once")
        assert nobody_there() == {"URX,UF"}
    finally:
        mesh.apply(MESH)


# --- Telemetry

SILENCED = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: silenced, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}]
  accessLogging: [{disabled: true}]
---
"""


def test_what_telemetry_silences_is_counted_and_not_logged(mesh: Mesh, waypoint: Waypoint) -> None:
    clients = [mesh.connect("shop/caller", vip(mesh, "web", each), 80) for each in TCP_FAMILIES]

    def is_told(there: bool) -> bool:
        return ('"silenced"' in get(waypoint.netns, 15000, "/config_dump")[1]) == there

    def logged(asked: Ask) -> bool:
        return any(f" {asked.path} " in line[1] for line in waypoint.lines())

    mesh.apply(SILENCED)
    try:
        wait_until(partial(is_told, there=True), "the waypoint knows of it")
        before = waypoint.figures().total("istio_requests_total")
        silent = [fresh("/silent") for _ in clients]
        for client, each in zip(clients, silent, strict=True):
            assert answers(client, [each])[0].status == 200
    finally:
        mesh.apply(SILENCED, delete=True)
    wait_until(partial(is_told, there=False), "it is gone")
    loud = [fresh("/loud") for _ in clients]
    for client, each in zip(clients, loud, strict=True):
        assert answers(client, [each])[0].status == 200
    for each in loud:
        wait_until(partial(logged, each), "it is logged again")
    assert not any(map(logged, silent))
    wait_until(
        lambda: waypoint.figures().total("istio_requests_total") >= before + len(silent + loud),
        "all are counted",
    )


WISHES = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}]
  accessLogging:
  - providers: [{name: text}]
    filter: {expression: "request.url_path.startsWith('/seen')"}
  - providers: [{name: labels}]
    match: {mode: SERVER}
  - providers: [{name: als}]
    match: {mode: CLIENT_AND_SERVER}
  - providers: [{name: envoy}]
    match: {mode: CLIENT}
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - match: {metric: ALL_METRICS, mode: SERVER}
      tagOverrides:
        agent: {operation: UPSERT, value: "has(request.useragent) ? request.useragent : 'none'"}
        where: {operation: UPSERT, value: "node.metadata['CLUSTER_ID'] == upstream_peer.cluster_id
          ? node.metadata['NAMESPACE'] : 'elsewhere'"}
        source_version: {operation: REMOVE}
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      disabled: true
    - match: {metric: RESPONSE_SIZE}
      disabled: true
  tracing:
  - match: {mode: SERVER}
    providers: [{name: otel}]
    randomSamplingPercentage: 100
    enableIstioTags: false
    customTags:
      literal: {literal: {value: a text that is longer than twenty letters}}
      variable: {environment: {name: POD_NAMESPACE, defaultValue: none}}
      nowhere: {environment: {name: NOT_SET, defaultValue: by default}}
      header: {header: {name: x-user, defaultValue: nobody}}
      format: {formatter: {value: "%REQ(:METHOD)% %RESPONSE_CODE%"}}
---
"""


class Collector:
    """OpenTelemetry's, over gRPC, in a pod: what it was sent, by method."""

    def __init__(self, mesh: Mesh) -> None:
        self.traces: list[tuple[ExportTraceServiceRequest, dict[str, str]]] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool)
        handlers = {
            TRACES: grpc.unary_unary_rpc_method_handler(
                self._trace, ExportTraceServiceRequest.FromString, lambda _: b""
            ),
            LOGS: grpc.unary_unary_rpc_method_handler(
                self._log, ExportLogsServiceRequest.FromString, lambda _: b""
            ),
        }
        for path, handler in handlers.items():
            _, name, method = path.split("/")
            made = grpc.method_handlers_generic_handler(name, {method: handler})
            self._server.add_generic_rpc_handlers((made,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._listener = mesh.listen("shop/collector", port=4317)
        self._pool.submit(self._relay, port)

    def _trace(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> str:
        self.traces.append((request, dict(context.invocation_metadata())))  # type: ignore[arg-type] (pairs, by grpcio's documentation)
        return ""

    def _log(self, request: ExportLogsServiceRequest, _context: grpc.ServicerContext) -> str:
        self.logs.append(request)
        return ""

    def _relay(self, port: int) -> None:
        self._listener.sock.settimeout(None)
        with suppress(OSError):
            while True:
                there = self._listener.accept()
                here = self._listener.keep(socket.create_connection(("127.0.0.1", port)))
                for each in (there, here):
                    each.settimeout(None)
                self._pool.submit(pump, here, there)
                self._pool.submit(pump, there, here)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.sock.shutdown(socket.SHUT_RDWR)
        self._server.stop(None).wait()
        self._pool.shutdown()


def test_what_is_reported_is_what_each_field_of_telemetry_says(mesh: Mesh, waypoint: Waypoint) -> None:
    collector = Collector(mesh)
    mesh.apply(WISHES)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)
    log = partial(mesh.laboratory.pod_log, waypoint.pod.full_name)
    seen = Ask("/seen", fields=("User-Agent: test", "X-User: jason"))
    try:

        def changed() -> bool:
            (answer,) = answers(client, [seen])
            return "text /seen 200 -" in log() and "traceparent: " in answer.body and bool(collector.traces)

        wait_until(changed, "it is reported as it is wished")
        later = [Ask("/unseen/2"), seen._replace(path="/seen/2")]
        assert [one.status for one in answers(client, later)] == [200, 200]
        wait_until(lambda: log().count("seen/2") == 3, "it is logged")
        lines = [line for line in log().splitlines() if "seen/2" in line]
        assert [line for line in lines if line.startswith("text")] == ["text /seen/2 200 -"]
        assert [json.loads(line) for line in lines if line.startswith("{")] == [
            {"path": "/unseen/2", "code": 200},
            {"path": "/seen/2", "code": 200},
        ]
        assert not [line for line in lines if line.startswith("[")]  # of CLIENT alone
        figures = waypoint.figures()
        counted = {"agent": "test", "where": "shop", "response_code": "200", "reporter": "waypoint"}
        assert figures.total("istio_requests_total", **counted) > 0
        assert figures.total("istio_request_bytes_count", **counted) > 0
        name = "istio_request_duration_milliseconds"
        found = [
            figures.total(f"{name}_bucket", le=le, **counted) for le in ("0.5", "100", "3600000", "+Inf")
        ]
        assert (found, found[-2]) == (sorted(found), figures.total(f"{name}_count", **counted))
        assert figures.total("istio_response_bytes_count", **counted) == 0
        assert figures.total("istio_requests_total", source_version="unknown", **counted) == 0
        request, metadata = collector.traces[0]
        assert metadata["x-tenant"] == "mine"
        resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
        assert resource["deployment.environment.name"] == "lab"
        (span, *_) = request.resource_spans[0].scope_spans[0].spans
        tags = {one.key: one.value.string_value for one in span.attributes}
        assert {name: tags[name] for name in ("literal", "variable", "nowhere", "header", "format")} == {
            "literal": "a text that is longe",
            "variable": "shop",
            "nowhere": "by default",
            "header": "jason",
            "format": "GET 200",
        }
        assert not [name for name in tags if name.startswith("istio.")]
        wait_until(lambda: collector.logs, "log records come")
        (whose,) = collector.logs[0].resource_logs
        assert {one.key: one.value.string_value for one in whose.resource.attributes}["log_name"] == "mine"
        record = whose.scope_logs[0].log_records[0]
        assert record.body.string_value == "GET here"
        assert [(one.key, one.value.string_value) for one in record.attributes] == [("code", "200")]
        traced = Ask("/seen", fields=("Traceparent: 00-" + "4b" * 16 + "-" + "aa" * 8 + "-01", "B3: 1"))
        mesh.apply(WISHES.replace("enableIstioTags: false", "disableContextPropagation: true"))

        def hidden() -> bool:
            (answer,) = answers(client, [traced])
            return "traceparent: " not in answer.body and "b3: " not in answer.body

        wait_until(hidden, "whoever comes next is told nothing of traces")

        def reported() -> bool:
            sent = [one for request, _ in collector.traces for one in request.resource_spans[0].scope_spans]
            spans = [span for one in sent for span in one.spans if span.trace_id == bytes.fromhex("4b" * 16)]
            tags = {one.key for span in spans for one in span.attributes}
            return "istio.source_namespace" in tags

        wait_until(reported, "and the span comes, with who calls whom")
    finally:
        mesh.apply(WISHES, delete=True)
        collector.close()


SPANS_TO = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: shop}
spec:
  tracing: [{providers: [{name: %s}], randomSamplingPercentage: 100,
             customTags: {mine: {literal: {value: longer than five}}}}]
---
"""


class Spans(Server):
    """A collector over HTTP; `answers`: it says something."""

    def __init__(self, mesh: Mesh) -> None:
        self.got: list[tuple[str, Any]] = []
        self.answers = True
        super().__init__(mesh.listen("shop/collector", port=9411))

    def respond(self, head: bytes, body: bytes) -> bytes:
        if not self.answers:
            return b""
        self.got.append((head.decode(), json.loads(body)))
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


B3 = ("x-b3-traceid", "x-b3-spanid", "x-b3-sampled")


def test_spans_come_as_each_field_of_their_provider_says(mesh: Mesh, waypoint: Waypoint) -> None:
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
    spans = Spans(mesh)
    theirs, single = "4b" * 16, f"b3: {'5c' * 16}-{'aa' * 8}-1"
    w3c = f"00-{theirs}-{'bb' * 8}-01"

    def asked(*fields: str) -> dict[str, str]:
        """The headers that the server gets."""
        (answer,) = answers(client, [Ask("/", fields=fields)])
        lines = [line.partition(": ") for line in answer.body.split("\r\n")]
        return {name.lower(): value for name, _, value in lines}

    def reported(path: str) -> tuple[str, Any]:
        found = wait_until(lambda: [one for one in spans.got if path in one[0]], f"spans come to {path}")
        spans.got.clear()
        return found[-1]

    try:
        mesh.apply(SPANS_TO % "zipkin")
        wait_until(lambda: "x-b3-traceid" in asked(), "spans are made")
        told = asked(f"Traceparent: {w3c}")
        assert (told["traceparent"], len(told["x-b3-traceid"])) == (w3c, 16)
        head, sent = reported("POST /mine ")
        assert ("\r\nx-tenant: mine\r\n" in head, "\r\nx-where: shop\r\n" in head) == (True, True)
        assert {len(one["traceId"]) for one in sent} == {16}
        assert {one["tags"]["mine"] for one in sent} == {"longe"}
        spans.answers = False
        told = asked(single)
        assert told["b3"].startswith("5c" * 16)
        assert (told["b3"].split("-")[1] != "aa" * 8, "x-b3-traceid" in told) == (True, False)
        wait_until(
            lambda: waypoint.figures().total("ztunnel_spans_dropped_total", provider="zipkin") > 0,
            "what is not answered in time is lost",
        )
        spans.answers = True
        mesh.apply(SPANS_TO % "both")
        wait_until(lambda: "traceparent" in asked(), "W3C's are written, too")
        told = asked(f"Traceparent: {w3c}")
        assert {theirs, told["x-b3-traceid"]} == {theirs}
        assert (told["traceparent"][:36], told["traceparent"] != w3c) == (w3c[:36], True)
        told = asked(f"Traceparent: {w3c}", single)
        assert told["traceparent"][3:35] == told["b3"][:32] == "5c" * 16
        reported("POST /api/v2/spans ")
        mesh.apply(SPANS_TO % "otel-http")
        wait_until(lambda: "x-b3-traceid" not in asked(), "nobody speaks B3")
        head, sent = reported("POST /otlp ")
        assert "\r\nx-tenant: other\r\n" in head
        resource = sent["resourceSpans"][0]["resource"]["attributes"]
        who = {one["key"]: one["value"]["stringValue"] for one in resource}
        assert {name: who[name] for name in ("service.name", "service.namespace")} == {
            "service.name": "wp",
            "service.namespace": "shop",
        }
        assert who["service.instance.id"] == f"shop.{waypoint.pod.name}.waypoint"
        plain = MESH.replace(
            "  mesh: |\n",
            "  mesh: |\n    enableTracing: true\n    defaultConfig: {tracing: {sampling: 100, "
            "zipkin: {address: 'spans.shop.svc.cluster.local:9411'}}}\n",
        )
        mesh.apply(plain + SPANS_TO.replace("providers: [{name: %s}], ", ""))
        wait_until(lambda: "x-b3-traceid" in asked(), "the mesh's own collector is told")
        reported("POST /api/v2/spans ")
    finally:
        mesh.apply(MESH)
        mesh.apply(SPANS_TO % "zipkin", delete=True)
        spans.close()


BY_MESH = MESH.replace(
    "  mesh: |\n",
    """  mesh: |
    accessLogFile: /dev/stdout
    accessLogEncoding: JSON
    accessLogFormat: '{"it": "%REQ(:PATH)%", "flags": "%RESPONSE_FLAGS%", "why": "%RESPONSE_CODE_DETAILS%"}'
    enableTracing: true
    defaultProviders: {tracing: [otel]}
    defaultConfig: {tracing: {sampling: 100, customTags: {where: {literal: {value: lab}}}}}
""",
)


def malformed() -> bytes:
    """A request of HTTP/2 without the body that it names."""
    side = h2.connection.H2Connection()
    side.initiate_connection()
    pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    side.send_headers(1, [*pseudo, ("content-length", "5")], end_stream=True)
    return side.data_to_send()


NO_REQUESTS = [
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "http1.codec_error"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 70_000), "http1.headers_too_large"),
    (malformed(), "http2.invalid_header_field"),
]
SILENT = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: silent, namespace: shop}
spec: {tracing: [{disableSpanReporting: true}]}
---
"""


def test_what_is_reported_is_what_each_field_of_the_mesh_config_says(mesh: Mesh, waypoint: Waypoint) -> None:
    collector = Collector(mesh)
    client = mesh.connect("shop/caller", vip(mesh, "web", IPv4Address), 80)

    def lines() -> list[dict[str, str]]:
        log = mesh.laboratory.pod_log(waypoint.pod.full_name).splitlines()
        return [json.loads(line) for line in log if line.startswith('{"it"')]

    try:
        mesh.apply(BY_MESH)

        def changed() -> bool:
            assert answers(client, [Ask("/by-mesh")])[0].status == 200
            return bool(lines() and collector.traces)

        wait_until(changed, "it is reported as the mesh wants it")
        assert lines()[-1] == {"it": "/by-mesh", "flags": "-", "why": "via_upstream"}
        spans = collector.traces[-1][0].resource_spans[0].scope_spans[0].spans
        assert [one.value.string_value for one in spans[0].attributes if one.key == "where"] == ["lab"]
        for name, flags in (("empty", "UH"), ("closed", "URX,UF")):
            other = mesh.connect("shop/caller", vip(mesh, name, IPv4Address), 80)
            assert answers(other, [Ask(f"/{name}")])[0].status == 503
            line = wait_until(lambda at=f"/{name}": [one for one in lines() if one["it"] == at], "its line")
            assert [one["flags"] for one in line] == [flags], line
        mesh.apply(SILENT)
        for octets, details in NO_REQUESTS:
            other = mesh.connect("shop/caller", vip(mesh, "web", IPv6Address), 80)
            count = len(lines())
            other.sendall(octets)
            line = wait_until(lambda at=count: lines()[at:], "what is no request is logged")
            assert [(one["flags"], one["why"]) for one in line] == [("DPE", details)]
        said = "00-" + "5c" * 16 + "-" + "bb" * 8 + "-01"
        asked = Ask("/silent", fields=(f"Traceparent: {said}",))
        wait_until(lambda: f"traceparent: {said}" in answers(client, [asked])[0].body, "it passes as it is")
        mesh.apply(SILENT, delete=True)
    finally:
        mesh.apply(MESH)
        collector.close()


# --- RequestAuthentications

OTHER, RSA = "https://other.example", "https://rsa.example"
TOKEN_RULES = ", ".join(
    [
        f"{{issuer: '{ISSUER}', {KEYS}, outputPayloadToHeader: x-payload, "
        "outputClaimToHeaders: [{header: x-user, claim: sub}, "
        "{header: x-ns, claim: kubernetes.io.namespace}]}",
        f"{{issuer: '{OTHER}', jwks: '{jwks(jwk('ES256', 'es'))}', audiences: [shop, bank], "
        "fromHeaders: [{name: x-jwt, prefix: 'JWT '}, {name: x-bare}], fromParams: [tok], "
        "fromCookies: [session], forwardOriginalToken: true, spaceDelimitedClaims: [roles]}",
        f"{{issuer: '{RSA}', jwks: '{jwks(jwk('RS256', 'rs'), jwk('PS256', 'ps'), jwk('ES384', 'e3'))}'}}",
    ]
)
THEIRS = signed(OTHER, "ES256", "es", aud="bank", roles="x y").decode()
BAD = signed(OTHER, "ES256", "es", aud="other").decode()


def confused(secret: bytes, algorithm: str = "HS256", **header: Any) -> bytes:
    """A token whose signature anybody can make: with a public key for the secret of an HMAC."""
    head = {"alg": algorithm, "kid": "rs", "typ": "JWT", **header}
    text = encoded(head) + b"." + encoded(claims(iss=RSA, iat=None, exp=int(time.time()) + 600))
    return text + b"." + b64(hmac.digest(secret, text, f"sha{algorithm[2:]}"))


PUBLIC = key_of("RS256", "rs").public_key()
SECRETS = [
    b"",
    PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    jwk("RS256", "rs")["n"].encode(),
]  # fmt: skip
CONFUSED = [confused(each, name) for each in SECRETS for name in ("HS256", "HS512")]
CONFUSED += [
    confused(b"k", jwk={"kty": "oct", "k": "aw", "kid": "rs"}),
    confused(b"k", jku="https://evil.example/keys"),
    signed(RSA, "PS256", "rs")[:-8],
    token(claims(iss=RSA, iat=None, exp=int(time.time()) + 600), "ES384", "rs", key=key_of("ES384", "e3")),
]
TOKENS = [
    (Ask(), 200, ""),
    (Ask(fields=with_token(signed())), 200, "x-user: alice"),
    (Ask(fields=with_token(signed())), 200, "x-payload: "),
    (Ask(fields=with_token(signed(kid="k2"))), 401, "Jwks doesn't have key to match kid or alg from Jwt"),
    (Ask(fields=with_token(signed("https://nobody.example"))), 401, "Jwt issuer is not configured"),
    (Ask(fields=with_token(signed(exp=1))), 401, "Jwt is expired"),
    (Ask(fields=with_token(signed(nbf=int(time.time()) + 900))), 401, "Jwt not yet valid"),
    (Ask(fields=with_token(b"x.y.z")), 401, "Jwt"),
    (Ask(f"/?access_token={signed().decode()}"), 200, "x-user: alice"),
    (Ask(fields=(f"X-Jwt: JWT {THEIRS}",)), 200, f"x-jwt: JWT {THEIRS}"),
    (Ask(fields=(f"X-Bare: {THEIRS}",)), 200, f"x-bare: {THEIRS}"),
    (Ask(f"/a?tok={THEIRS}"), 200, f"/a?tok={THEIRS}"),
    (Ask(fields=(f"Cookie: a=b; session={THEIRS}",)), 200, f"session={THEIRS}"),
    (Ask(fields=(f"X-Jwt: JWT {BAD}",)), 403, "Audiences in Jwt are not allowed"),
    (Ask(fields=(f"X-Jwt: {BAD}",)), 200, f"x-jwt: {BAD}"),  # without the prefix it is no token
    (Ask(fields=with_token(THEIRS.encode())), 401, "Jwt issuer is not configured"),  # not its place
    (Ask(fields=with_token(signed(RSA, "RS256", "rs"))), 200, ""),
    (Ask(fields=with_token(signed(RSA, "RS512", "rs"))), 200, ""),
    (Ask(fields=with_token(signed(RSA, "PS256", "ps"))), 200, ""),
    (Ask(fields=with_token(signed(RSA, "ES384", "e3"))), 200, ""),
    (Ask(fields=with_token(token(header={"alg": "none"}))), 401, "Jwt"),
    *((Ask(fields=with_token(each)), 401, "Jwt") for each in CONFUSED),
    # envoyproxy/envoy#27877, #31468, istio/istio#29024
    (Ask(fields=with_token(signed() + b" more")), 401, "Jwt"),
    (Ask(fields=with_token(signed() + b"###")), 401, "Jwt"),
    (Ask(fields=("Authorization: Basic YTpi", *with_token(signed()))), 200, "x-user: alice"),
    (Ask(fields=with_token(signed(), *with_token(b"x.y.z"))), 401, "Jwt"),
    (Ask(fields=with_token(b"x.y.z", *with_token(signed()))), 401, "Jwt"),
    (Ask(fields=(f"Authorization: {signed().decode()}",)), 200, "authorization: "),
    (Ask(fields=with_token(signed(**{"kubernetes.io": {"namespace": "ns"}}))), 200, "x-ns: ns"),
]
"""A request, the status of its answer, and what the server was sent or the client is told."""


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_tokens_are_believed_by_each_field_of_their_rule(
    mesh: Mesh, waypoint: Waypoint, family: Family
) -> None:
    roles = when("request.auth.claims[roles]", "values: [y]")
    texts = authentication(TOKEN_RULES, "proved") + policy(
        "roles", f"{{to: [{{operation: {{notPaths: ['/roles']}}}}]}}, {{{roles}}}", "Service proved"
    )
    mesh.apply(texts)
    try:
        client = mesh.connect("shop/caller", vip(mesh, "proved", family), 80)
        there = [Ask(fields=with_token(b"x.y.z")), Ask("/roles")]
        wait_until(partial(is_answered, client, there, [401, 403]), "the rules are there")
        found = answers(client, [ask for ask, _, _ in TOKENS])
        for (ask, status, text), answer in zip(TOKENS, found, strict=True):
            assert answer.status == status, (ask, answer)
            assert text in answer.body, (ask, answer)
            if status == 200 and any(line.startswith("Authorization: Bearer ") for line in ask.fields):
                assert "authorization" not in answer.body  # not forwarded
        split = Ask("/roles", fields=(f"X-Bare: {THEIRS}",))
        assert answers(client, [split])[0].status == 200

    finally:
        mesh.apply(texts, delete=True)


class Issuer(Server):
    """Serves keys, or fails."""

    def __init__(self, mesh: Mesh, keys: str) -> None:
        self.keys = keys
        self.asked = 0
        super().__init__(mesh.listen("shop/collector", port=8005))

    def respond(self, head: bytes, body: bytes) -> bytes:
        self.asked += 1
        if not self.keys:
            return b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.keys), self.keys.encode())


def test_keys_that_an_issuer_changes_count_and_no_others(mesh: Mesh, waypoint: Waypoint) -> None:
    """Also those under a name that is there already; and while it fails the last good ones count."""
    address = mesh.address("shop/collector", IPv6Address)
    rules = authentication(f"{{issuer: '{ISSUER}', jwksUri: 'http://[{address}]:8005/keys'}}", "proved")
    client = mesh.connect("shop/caller", vip(mesh, "proved", IPv4Address), 80)
    issuer = Issuer(mesh, jwks(jwk("EdDSA")))
    first, second = Ask(fields=with_token(signed())), Ask(fields=with_token(signed(kid="k2")))
    other = jwk("EdDSA", "k3") | {"kid": "k2"}
    third = token(claims(iat=None, exp=int(time.time()) + 600), "EdDSA", "k2", key=key_of("EdDSA", "k3"))
    mesh.apply(rules)
    try:
        wait_until(partial(is_answered, client, [first, second], [200, 401]), "the first key counts")
        goes_on = mesh.connect("shop/caller", vip(mesh, "proved", IPv6Address), 80)
        goes_on.sendall(first._replace(path="/held").octets)
        issuer.keys = jwks(jwk("EdDSA", "k2"))
        wait_until(partial(is_answered, client, [first, second], [401, 200]), "the second one counts")
        assert head_of(goes_on).startswith(b"HTTP/1.1 401 ")
        issuer.keys, count = "", issuer.asked
        wait_until(lambda: issuer.asked > count, "it is asked, in vain")
        assert is_answered(client, [first, second], [401, 200])
        issuer.keys = jwks(other)
        again = Ask(fields=with_token(third))
        wait_until(partial(is_answered, client, [second, again], [401, 200]), "another one of that name")
    finally:
        mesh.apply(rules, delete=True)
        issuer.close()
