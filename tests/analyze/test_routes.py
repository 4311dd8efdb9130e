"""What is doubtful in objects that route is found, with Istio's codes where it has one."""

from __future__ import annotations

import pytest

from tests.analyze.parts import AMBIENT, WEB, findings
from ztunnel.analyze.finding import Level

NAMESPACE = AMBIENT.replace("ambient}", "ambient, istio.io/use-waypoint: waypoint}")
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: ztunnel-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
"""
BASE = (NAMESPACE, GATEWAY, WEB, SERVICE)


def virtual(http: str, name: str = "v") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{hosts: [web], http: [{http}]}}\n"
    )


def rule(spec: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: shop}\n"
        f"spec: {{{spec}}}\n"
    )


def route(rules: str) -> str:
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n"
        f"spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{rules}]}}\n"
    )


def told(*texts: str, base: tuple[str, ...] = BASE) -> list[tuple[str, str, str]]:
    quiet = {one.message for one in findings(*base)}
    return [(one.code, one.what, one.message) for one in findings(*base, *texts) if one.message not in quiet]


TO = "route: [{destination: {host: web}}]"
V = "VirtualService shop/v"


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        (f"{{{TO}}}", []),
        ("{route: [{destination: {host: reviews}}]}",
         [("IST0101", V, "http[0].route: there is no service reviews.shop.svc.cluster.local")]),
        ("{route: [{destination: {host: web, subset: v9}}]}",
         [("IST0101", V,
           "http[0].route: no DestinationRule for web.shop.svc.cluster.local has a subset v9")]),
        (f"{{{TO}}}, {{match: [{{uri: {{prefix: /a}}}}], {TO}}}",
         [("IST0130", V, "http[1]: http[0] is for everything: no request comes here")]),
        (f"{{match: [{{uri: {{prefix: /a}}}}], {TO}}}, "
         f"{{match: [{{uri: {{prefix: /b}}}}, {{uri: {{prefix: /a}}}}], {TO}}}",
         [("IST0131", V, "http[1].match[1]: http[0] has it before: it is never met here")]),
        (f"{{match: [{{sourceLabels: {{a: b}}}}], {TO}}}, {{{TO}}}",
         [("ZT0100", V, "http[0].match: a waypoint does not know sourceLabels: the match is left out")]),
        ("{match: [{uri: {regex: '('}}], redirect: {uri: /}}",
         [("IST0122", V,
           "spec.http[0].match[0].uri.regex: not a regular expression of RE2: '(': missing ): (")]),
    ],
)  # fmt: skip
def test_a_virtual_service_is_looked_through(http: str, expected: list[tuple[str, str, str]]) -> None:
    found = told(virtual(http))
    assert [(code, message) for code, _, message in found] == [(code, text) for code, _, text in expected]


def test_a_destination_without_a_port_names_the_ports_of_its_service() -> None:
    two = SERVICE.replace("[{port: 80, name: http}]", "[{port: 80, name: http}, {port: 81, name: http-b}]")
    ((code, _, message),) = told(virtual(f"{{{TO}}}"), base=(NAMESPACE, GATEWAY, WEB, two))
    assert code == "IST0112"
    assert message == (
        "http[0].route: web.shop.svc.cluster.local has the ports 80, 81: the one that was called is taken"
    )


def test_several_objects_for_one_service_are_named_to_each_other() -> None:
    backend = route("{backendRefs: [{name: web, port: 80}]}")
    found = told(virtual(f"{{{TO}}}"), virtual(f"{{{TO}}}", "w"), backend)
    assert {(code, what) for code, what, _ in found} == {
        ("IST0109", "VirtualService shop/v"), ("IST0109", "VirtualService shop/w"),
        ("IST0109", "HTTPRoute shop/r"),
    }  # fmt: skip
    assert any("has rules of HTTPRoute shop/r, VirtualService shop/w, too" in text for _, _, text in found)
    assert told(backend) == []


@pytest.mark.parametrize(
    ("backend", "code"),
    [
        ("{backendRefs: [{name: nobody, port: 80}]}", "IST0101"),
        ("{backendRefs: [{name: web, namespace: bank, port: 80}]}", "ZT0107"),
        ("{backendRefs: [{kind: Pod, name: web, port: 80}]}", "ZT0107"),
        ("{filters: [{type: ExtensionRef}]}", "ZT0107"),
    ],
)
def test_what_refuses_requests_of_a_route_is_found(backend: str, code: str) -> None:
    assert [one[:2] for one in told(route(backend))] == [(code, "HTTPRoute shop/r")]


def test_rules_for_a_service_without_a_waypoint_do_nothing() -> None:
    base = (AMBIENT, WEB, SERVICE)
    (found,) = told(virtual(f"{{{TO}}}"), base=base)
    assert found[:2] == ("ZT0108", V)
    own = SERVICE.replace("namespace: shop}", "namespace: shop, labels: {istio.io/use-waypoint: waypoint}}")
    assert told(virtual(f"{{{TO}}}"), base=(AMBIENT, GATEWAY, WEB, own)) == []


@pytest.mark.parametrize(
    ("ports", "effect"),
    [
        ("[{port: 80, name: http}]", True),
        ("[{port: 80, name: tcp-web}]", False),
        ("[{port: 80, name: https}]", False),
        ("[{port: 80, name: web}]", True),
        ("[{port: 80, name: web, appProtocol: tcp}]", False),
        ("[{port: 80, name: tcp-web}, {port: 81, name: http}]", True),
    ],
)
def test_rules_for_requests_do_nothing_where_no_port_speaks_http(ports: str, effect: bool) -> None:
    text = SERVICE.replace("[{port: 80, name: http}]", ports)
    to = "route: [{destination: {host: web, port: {number: 80}}}]"
    found = told(virtual(f"{{{to}}}"), base=(NAMESPACE, GATEWAY, WEB, text))
    assert [one[:2] for one in found] == ([] if effect else [("ZT0108", V)])


@pytest.mark.parametrize(
    ("spec", "codes"),
    [
        ("host: web, subsets: [{name: v1, labels: {version: v1}}]", []),
        ("host: web, subsets: [{name: v2, labels: {version: v2}}]", ["IST0127"]),
        ("host: web, subsets: [{name: all}]", []),
        ("host: reviews, subsets: [{name: v2, labels: {version: v2}}]", ["IST0101"]),
        ("host: '*.shop.svc.cluster.local'", []),
        ("host: web, trafficPolicy: {tls: {mode: SIMPLE}}", ["IST0128"]),
        ("host: web, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: x}}", []),
        ("host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}",
         ["IST0129"]),
    ],
)  # fmt: skip
def test_a_destination_rule_is_looked_through(spec: str, codes: list[str]) -> None:
    assert [code for code, _, _ in told(rule(spec)) if code != "ZT0100"] == codes


def test_how_bad_it_is() -> None:
    levels = {one.code: one.level for one in findings(*BASE, route("{filters: [{type: ExtensionRef}]}"))}
    assert levels["ZT0107"] is Level.ERROR


SERVED = (
    GATEWAY.rstrip() + "\nstatus: {addresses: [{type: Hostname, value: waypoint.shop.svc.cluster.local}]}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: waypoint, namespace: shop}\n"
    "spec: {clusterIP: 10.96.0.9, ports: [{port: 15008, name: hbone}]}\n",
)
OTHER_SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: other, namespace: shop}\n"
NEEDS = rule("host: web, trafficPolicy: {tls: {mode: SIMPLE, credentialName: s}}")


def test_a_secret_that_is_missing_is_found_where_secrets_are_among_the_manifests() -> None:
    base = (NAMESPACE, WEB, SERVICE.replace("ports:", "clusterIP: 10.96.0.8, ports:"), *SERVED)
    assert told(NEEDS, base=base) == []
    message = "credentialName 's', for waypoints of shop: there is no Secret shop/s"
    assert told(NEEDS, OTHER_SECRET, base=base) == [("IST0101", "DestinationRule shop/d", message)]
    there = OTHER_SECRET.replace("other", "s") + "stringData: {ca.crt: R}\n"
    assert told(NEEDS, there, base=base) == []


def test_a_route_by_claims_of_tokens_that_nobody_proves_is_found() -> None:
    match = "match: [{headers: {'@request.auth.claims.group': {exact: admin}}}]"
    by_claim = virtual(f"{{{match}, {TO}}}, {{{TO}}}")
    found = [message for code, what, message in told(by_claim) if (code, what) == ("IST0149", V)]
    text = "it routes by claims (group), and no RequestAuthentication proves tokens of web.shop"
    assert [each.startswith(text) for each in found] == [True]
    proves = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: j, namespace: shop}\n"
        "spec: {jwtRules: [{issuer: i, jwksUri: 'https://i.example/keys'}]%s}\n"
    )
    targets = ", targetRefs: [{group: '', kind: Service, name: web}]"
    assert "IST0149" in {code for code, _, _ in told(by_claim, proves % "")}, "of no waypoint"
    assert "IST0149" not in {code for code, _, _ in told(by_claim, proves % targets)}
    assert "IST0149" not in {code for code, _, _ in told(virtual(f"{{{TO}}}"))}
