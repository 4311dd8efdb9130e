"""What policies decide, field by field, from the manifest to the decision."""

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.control.test_translation import translated
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.authorization import ADMITTED, Authorization, Authorizations
from ztunnel.l7.request import Request
from ztunnel.model.address import parse_endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.identity import SpiffeId
from ztunnel.xds.resource import HTTP_POLICY

SHOP = SpiffeId("cluster.local", "shop", "front")
TARGETS = [{"kind": "Service", "group": "", "name": "web"}]


def policies(*specs):
    """Policies p0, p1, ... of the namespace shop, each by its spec in YAML."""
    objects = [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {
                "name": f"p{number}",
                "namespace": "shop",
                "annotations": {"istio.io/dry-run": "true"} if "DRY" in spec else {},
            },
            "spec": {"targetRefs": TARGETS, **(yaml.safe_load(spec.replace("DRY", "")) or {})},
        }
        for number, spec in enumerate(specs)
    ]
    found = translated(yaml.safe_dump_all(objects)).http.get(HTTP_POLICY, {})
    assert len(found) == len(specs)
    return found


def authorization(*specs):
    found = policies(*specs)
    return Authorization(found, found)


def connection(source="10.0.0.1:1234", destination="10.96.0.1:80", identity=SHOP):
    return Connection(parse_endpoint(source), parse_endpoint(destination), identity)


def asked(line="GET web /", *headers, claims=None, peer="10.0.0.1", hops=0):
    method, host, path = line.split(" ")
    fields = [tuple(part.strip().encode() for part in header.split(":", 1)) for header in headers]
    request = Request(method.encode(), host.encode(), path.encode(), fields)
    if claims is not None:
        request.claims = claims
    return Attributes(request, ip_address(peer), hops)


def decide(specs, request=None, of=None, **more):
    judge = authorization(*([specs] if isinstance(specs, str) else specs)).judge(of or connection(), **more)
    return judge.decide(request if request is not None else asked())


def matches(rule, request=None, of=None):
    """Whether a rule matches: as an ALLOW policy lets through by it, a DENY policy refuses by it."""
    allowed = decide(f"rules: [{rule}]", request, of).allowed
    denied = decide(f"{{action: DENY, rules: [{rule}]}}", request, of).allowed
    assert allowed is not denied
    return allowed


def source(text):
    return f"{{from: [{{source: {{{text}}}}}]}}"


def operation(text):
    return f"{{to: [{{operation: {{{text}}}}}]}}"


def when(key, text):
    return f"{{when: [{{key: '{key}', {text}}}]}}"


PRINCIPAL = "cluster.local/ns/shop/sa/front"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (source(f"principals: ['{PRINCIPAL}']"), True),
        (source("principals: ['cluster.local/ns/shop/sa/fron']"), False),
        (source("principals: ['cluster.local/ns/shop/*']"), True),
        (source("principals: ['*/sa/front']"), True),
        (source("principals: ['*']"), True),
        (source(f"notPrincipals: ['{PRINCIPAL}']"), False),
        (source("notPrincipals: ['cluster.local/ns/other/*']"), True),
        (source("namespaces: [shop]"), True),
        (source("namespaces: [sho]"), False),
        (source("namespaces: ['s*']"), True),
        (source("namespaces: ['*p']"), True),
        (source("namespaces: ['s*p']"), True),
        (source("namespaces: ['s*x']"), False),
        (source("namespaces: ['*']"), True),
        (source("notNamespaces: [shop]"), False),
        (source("notNamespaces: [other]"), True),
        (source("serviceAccounts: [front]"), True),
        (source("serviceAccounts: [shop/front]"), True),
        (source("serviceAccounts: [other/front]"), False),
        (source("notServiceAccounts: [front]"), False),
        (source("trustDomains: [cluster.local]"), True),
        (source("trustDomains: ['*.local']"), True),
        (source("trustDomains: [other]"), False),
        (source("notTrustDomains: [cluster.local]"), False),
        (source("ipBlocks: [10.0.0.1]"), True),
        (source("ipBlocks: [10.0.0.0/8]"), True),
        (source("ipBlocks: [10.1.0.0/16]"), False),
        (source("ipBlocks: ['fd00::/8']"), False),
        (source("notIpBlocks: [10.0.0.0/8]"), False),
        (source("notIpBlocks: [10.1.0.0/16]"), True),
        (source("ipBlocks: [10.0.0.0/8], notIpBlocks: [10.0.0.1]"), False),
        (source("namespaces: [shop], notPrincipals: ['*/sa/front']"), False),
        ("{from: [{source: {namespaces: [x]}}, {source: {namespaces: [shop]}}]}", True),
        (operation("ports: ['80']"), True),
        (operation("ports: ['8080', '80']"), True),
        (operation("ports: ['8080']"), False),
        (operation("notPorts: ['80']"), False),
        (operation("notPorts: ['8080']"), True),
        (when("source.ip", "values: [10.0.0.1]"), True),
        (when("source.ip", "notValues: [10.0.0.1]"), False),
        (when("source.namespace", "values: [shop]"), True),
        (when("source.principal", f"values: ['{PRINCIPAL}']"), True),
        (when("source.serviceAccount", "values: [front]"), True),
        (when("source.trustDomain", "values: [x]"), False),
        (when("destination.ip", "values: [10.96.0.0/16]"), True),
        (when("destination.ip", "values: [10.97.0.0/16]"), False),
        (when("destination.port", "values: ['80']"), True),
        (when("destination.port", "notValues: ['80']"), False),
        (when("connection.sni", "values: [web]"), False),
        (when("connection.sni", "notValues: [web]"), True),
    ],
)
def test_what_a_connection_is(rule, expected):
    assert matches(rule) is expected
    # Of a connection that is no HTTP the same holds.
    for action, allowed in (("ALLOW", expected), ("DENY", not expected)):
        judge = authorization(f"{{action: {action}, rules: [{rule}]}}").judge(connection(), http=False)
        assert judge.decide(None).allowed is allowed


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (source("principals: ['*']"), False),
        (source("notPrincipals: ['a']"), True),
        (source("namespaces: ['*']"), False),
        (source("notNamespaces: [shop]"), True),
        (source("serviceAccounts: [front]"), False),
        (source("notServiceAccounts: [front]"), True),
    ],
)
def test_who_has_proved_nothing_is_nobody(rule, expected):
    assert matches(rule, of=connection(identity=None)) is expected


@pytest.mark.parametrize("address", ["fd00::1", "10.0.0.1"])
def test_addresses_of_both_families(address):
    of = connection(source=f"[{address}]:1" if ":" in address else f"{address}:1")
    assert matches(source("ipBlocks: ['fd00::/8', '10.0.0.0/8']"), of=of)
    assert not matches(source("ipBlocks: ['fd01::/16', '11.0.0.0/8']"), of=of)
    assert not matches(source("notIpBlocks: ['fd00::1', 10.0.0.1]"), of=of)


SUFFIX = "values: ['*.example']"


SUFFIX = "values: ['*.example']"


def test_the_sni_of_a_connection():
    found = authorization(f"rules: [{when('connection.sni', SUFFIX)}]")
    for http in (True, False):
        assert found.judge(connection(), http, "web.example").decide(asked()).allowed
        assert not found.judge(connection(), http, "example").decide(asked()).allowed


@pytest.mark.parametrize("text", [SUFFIX, "notValues: [web]"])
def test_a_server_name_that_nobody_has_read_lets_nothing_through(text):
    """It may be any; TLS that passes through is not looked into."""
    for action in ("ALLOW", "DENY"):
        found = authorization(f"{{action: {action}, rules: [{when('connection.sni', text)}]}}")
        assert not found.judge(connection(), http=False, sni=None).decide(None).allowed


METHODS = [
    ("methods: [GET]", "GET web /", True),
    ("methods: [get]", "GET web /", False),
    ("methods: ['P*']", "PUT web /", True),
    ("methods: ['*T']", "PUT web /", True),
    ("methods: ['*']", "BREW web /", True),
    ("notMethods: [GET, HEAD]", "HEAD web /", False),
    ("notMethods: [GET, HEAD]", "POST web /", True),
]
PATHS = [
    ("paths: ['/a']", "/a", True),
    ("paths: ['/a']", "/a?b=c", True),
    ("paths: ['/a']", "/a/", False),
    ("paths: ['/a']", "/A", False),
    ("paths: ['/a']", "/a/b", False),
    ("paths: ['/a*']", "/ab/c", True),
    ("paths: ['/a/*']", "/a", False),
    ("paths: ['/a/*']", "/a/", True),
    ("paths: ['*.html']", "/a/b.html?c", True),
    ("paths: ['*.html']", "/a/b.htm?c.html", False),
    ("paths: ['*']", "/", True),
    ("paths: ['/a', '/b/c', '/d*']", "/b/c", True),
    ("notPaths: ['/a']", "/a", False),
    ("notPaths: ['/a']", "/a?b", False),
    ("notPaths: ['/a*']", "/b", True),
    ("paths: ['/a*'], notPaths: ['/a/b']", "/a/b", False),
    ("paths: ['/a*'], notPaths: ['/a/b']", "/a/c", True),
    ("paths: ['/{*}']", "/a", True),
    ("paths: ['/{*}']", "/", False),
    ("paths: ['/{*}']", "/a/b", False),
    ("paths: ['/{*}']", "/a/", False),
    ("paths: ['/a/{*}/c']", "/a/b/c", True),
    ("paths: ['/a/{*}/c']", "/a/b/b/c", False),
    ("paths: ['/a/{*}/c']", "/a//c", False),
    ("paths: ['/a/{*}/c/{**}']", "/a/b/c/", True),
    ("paths: ['/a/{*}/c/{**}']", "/a/b/c/d/e", True),
    ("paths: ['/a/{*}/c/{**}']", "/a/b/c", False),
    ("paths: ['/{**}']", "/", True),
    ("paths: ['/{**}']", "/a/b", True),
    ("paths: ['/{**}/']", "/a/b/", True),
    ("paths: ['/{**}/']", "/a/b", False),
    ("paths: ['/{*}/b.c']", "/a/bxc", False),
    ("paths: ['/{*}']", "/a*b!$&'()+,;=:@%2F", True),
    ("notPaths: ['/a/{*}']", "/a/b", False),
]
HOSTS = [
    ("hosts: [web.example]", "web.example", True),
    ("hosts: [web.example]", "WEB.example", True),
    ("hosts: [Web.Example]", "web.example", True),
    ("hosts: [web.example]", "a.web.example", False),
    ("hosts: ['*.example']", "a.web.example", True),
    ("hosts: ['*.example']", "example", False),
    ("hosts: ['web.*']", "web.other", True),
    ("hosts: ['web.example:*']", "web.example:8080", True),
    ("hosts: ['web.example:8080']", "web.example:8080", True),
    ("hosts: ['web.example:8080']", "web.example", False),
    ("hosts: ['*']", "anything", True),
    ("notHosts: [web.example]", "WEB.EXAMPLE", False),
    ("notHosts: [web.example]", "other", True),
    ("hosts: ['[fd00::1]']", "[fd00::1]", True),
]


@pytest.mark.parametrize(("text", "line", "expected"), METHODS)
def test_methods(text, line, expected):
    assert matches(operation(text), asked(line)) is expected


@pytest.mark.parametrize(("text", "path", "expected"), PATHS)
def test_paths(text, path, expected):
    assert matches(operation(text), asked(f"GET web {path}")) is expected


@pytest.mark.parametrize(("text", "host", "expected"), HOSTS)
def test_hosts(text, host, expected):
    assert matches(operation(text), asked(f"GET {host} /")) is expected


@pytest.mark.parametrize("host", ["web.example:80", "WEB.example:8080", "web.example.", "web.example.:80"])
def test_a_port_or_a_dot_behind_a_name_gets_nobody_around_a_policy(host):
    request = asked(f"GET {host} /")
    refused = f"{{action: DENY, rules: [{operation('hosts: [web.example]')}]}}"
    assert not decide(refused, request).allowed
    assert not decide(f"rules: [{operation('hosts: [web.example]')}]", request).allowed
    assert not decide(f"rules: [{operation('notHosts: [web.example]')}]", request).allowed
    spared = f"{{action: DENY, rules: [{operation('notHosts: [web.example]')}]}}"
    assert not decide(spared, request).allowed


HEADERS = [
    ("values: [v]", ["x-a: v"], True),
    ("values: [v]", ["x-a: V"], False),
    ("values: [v]", [], False),
    ("values: [v]", ["x-b: v"], False),
    ("values: ['v*']", ["x-a: vw"], True),
    ("values: ['*v']", ["x-a: wv"], True),
    ("values: ['*']", ["x-a: v"], True),
    ("values: ['*']", ["x-a:"], True),
    ("values: ['*']", [], False),
    ("values: ['v,w']", ["x-a: v", "x-a: w"], True),
    ("values: [v]", ["x-a: v", "x-a: w"], False),
    ("notValues: [v]", ["x-a: v"], False),
    ("notValues: [v]", ["x-a: w"], True),
    ("notValues: [v]", [], True),
    ("notValues: ['*']", [], True),
    ("notValues: ['*']", ["x-a:"], False),
    ("values: ['v*'], notValues: [vw]", ["x-a: vw"], False),
    ("values: ['v*'], notValues: [vw]", ["x-a: vx"], True),
]


@pytest.mark.parametrize(("text", "headers", "expected"), HEADERS)
def test_headers(text, headers, expected):
    assert matches(when("request.headers[X-A]", text), asked("GET web /", *headers)) is expected


@pytest.mark.parametrize(
    ("name", "value"),
    [(":authority", "web"), ("Host", "web"), (":method", "GET"), (":path", "/a?b"), (":scheme", "http")],
)
def test_what_heads_a_request_is_a_header_too(name, value):
    assert matches(when(f"request.headers[{name}]", f"values: ['{value}']"), asked("GET web /a?b"))
    assert not matches(when(f"request.headers[{name}]", "values: [other]"), asked("GET web /a?b"))


@pytest.mark.parametrize(
    ("headers", "hops", "ip"),
    [
        ([], 0, "10.0.0.1"),
        (["x-forwarded-for: 192.0.2.1"], 0, "192.0.2.1"),
        (["x-forwarded-for: 192.0.2.1, 192.0.2.2"], 0, "192.0.2.2"),
        (["x-forwarded-for: 192.0.2.1", "x-forwarded-for: 192.0.2.2"], 0, "192.0.2.2"),
        (["x-forwarded-for: 192.0.2.1, 192.0.2.2"], 1, "192.0.2.1"),
        (["x-forwarded-for: 192.0.2.1"], 1, "10.0.0.1"),
        (["x-forwarded-for: 2001:db8::1"], 0, "2001:db8::1"),
        (["x-forwarded-for: nonsense"], 0, "10.0.0.1"),
        (["x-forwarded-for: 192.0.2.1,"], 0, "10.0.0.1"),
    ],
)
def test_remote_addresses(headers, hops, ip):
    request = asked("GET web /", *headers, hops=hops)
    assert matches(source(f"remoteIpBlocks: ['{ip}']"), request)
    assert not matches(source(f"notRemoteIpBlocks: ['{ip}']"), request)
    assert matches(when("remote.ip", f"values: ['{ip}']"), request)
    assert not matches(when("remote.ip", "values: ['203.0.113.0/24']"), request)


CLAIMS = {
    "iss": "https://issuer/realm",
    "sub": "alice",
    "aud": ["shop", "bank"],
    "azp": "app",
    "scope": ["read", "write"],
    "group": "admins",
    "nested": {"roles": ["a", "b"], "deep": {"er": "x"}},
    "number": 1,
    "true": True,
}
TOKENS = [
    (source("requestPrincipals: ['*']"), True),
    (source("requestPrincipals: ['https://issuer/realm/alice']"), True),
    (source("requestPrincipals: ['https://issuer/realm/bob']"), False),
    (source("requestPrincipals: ['https://issuer/realm/*']"), True),
    (source("requestPrincipals: ['https://issuer/realm/al*']"), True),
    (source("requestPrincipals: ['https://issuer/*']"), False),  # the issuer is another one
    (source("requestPrincipals: ['https*']"), True),
    (source("requestPrincipals: ['https://issuer/realm*']"), False),  # behind the last slash is the subject
    (source("requestPrincipals: ['*/alice']"), True),
    (source("requestPrincipals: ['*/lice']"), False),
    (source("requestPrincipals: ['*realm/alice']"), True),
    (source("requestPrincipals: ['*ice']"), True),
    (source("requestPrincipals: ['https://issuer/realm']"), False),
    (source("notRequestPrincipals: ['*']"), False),
    (source("notRequestPrincipals: ['*/bob']"), True),
    (when("request.auth.principal", "values: ['*/alice']"), True),
    (when("request.auth.audiences", "values: [bank]"), True),
    (when("request.auth.audiences", "values: [other]"), False),
    (when("request.auth.audiences", "notValues: [bank]"), False),
    (when("request.auth.presenter", "values: ['a*']"), True),
    (when("request.auth.presenter", "values: [b]"), False),
    (when("request.auth.claims[group]", "values: [admins]"), True),
    (when("request.auth.claims[group]", "values: ['*']"), True),
    (when("request.auth.claims[group]", "notValues: [admins]"), False),
    (when("request.auth.claims[scope]", "values: [write]"), True),
    (when("request.auth.claims[scope]", "values: ['read write']"), False),
    (when("request.auth.claims[nested][roles]", "values: [b]"), True),
    (when("request.auth.claims[nested][deep][er]", "values: [x]"), True),
    (when("request.auth.claims[nested][deep]", "values: ['*']"), False),
    (when("request.auth.claims[nested][roles][a]", "values: ['*']"), False),
    (when("request.auth.claims[none]", "values: ['*']"), False),
    (when("request.auth.claims[none]", "notValues: [x]"), True),
    (when("request.auth.claims[number]", "values: ['1']"), False),
    (when("request.auth.claims[true]", "values: ['true']"), False),
]


@pytest.mark.parametrize(("rule", "expected"), TOKENS)
def test_tokens(rule, expected):
    assert matches(rule, asked(claims=CLAIMS)) is expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (source("requestPrincipals: ['*']"), False),
        (source("requestPrincipals: ['https*']"), False),
        (source("notRequestPrincipals: ['*']"), True),
        (when("request.auth.claims[iss]", "values: ['*']"), False),
        (when("request.auth.audiences", "notValues: [a]"), True),
        (when("request.auth.presenter", "values: ['*']"), False),
    ],
)
def test_without_a_token_nothing_is_claimed(rule, expected):
    assert matches(rule) is expected
    assert matches(rule, asked("GET web /", "authorization: Bearer x.y.z")) is expected


@pytest.mark.parametrize(
    ("claims", "path", "allowed"),
    [
        ({}, "/test/x", True),
        ({}, "/other", False),
        ({"iss": "i"}, "/other", True),
        ({"iss": "i"}, "/test/x", True),
    ],
)
def test_only_certain_paths_are_open_to_who_has_no_token(claims, path, allowed):
    """A DENY of what is not named, for who has no issuer (istio/istio#29567)."""
    who = "when: [{key: 'request.auth.claims[iss]', notValues: ['*']}]"
    spec = f"{{action: DENY, rules: [{{{who}, to: [{{operation: {{notPaths: ['/test/*']}}}}]}}]}}"
    assert decide(spec, asked(f"GET web {path}", claims=claims)).allowed is allowed


def test_a_token_without_a_subject_has_no_principal():
    for claims in ({"iss": "i"}, {"sub": "s"}, {"iss": ["i"], "sub": "s"}):
        assert not matches(source("requestPrincipals: ['*']"), asked(claims=claims))


# --- policies together

NOTHING = "{}"
GET_ALLOWED = f"rules: [{operation('methods: [GET]')}]"


@pytest.mark.parametrize(
    ("specs", "line", "details"),
    [
        ([], "GET web /", ""),
        ([NOTHING], "GET web /", "none"),
        (["rules: [{}]"], "GET web /", ""),
        (["{action: DENY, rules: [{}]}"], "GET web /", "ns[shop]-policy[p0]-rule[0]"),
        ([GET_ALLOWED], "GET web /", ""),
        ([GET_ALLOWED], "POST web /", "none"),
        ([GET_ALLOWED, NOTHING], "GET web /", ""),
        ([GET_ALLOWED, f"rules: [{operation('paths: [/a]')}]"], "POST web /a", ""),
        (
            [
                GET_ALLOWED,
                f"{{action: DENY, rules: [{operation('paths: [/b]')}, {operation('paths: [/a]')}]}}",
            ],
            "GET web /a",
            "ns[shop]-policy[p1]-rule[1]",
        ),
        (["{action: AUDIT, rules: [{}]}"], "GET web /", ""),
        (["{action: CUSTOM, provider: {name: x}, rules: [{}]}"], "GET web /", "ns[shop]-policy[p0]-rule[0]"),
        (
            [f"{{action: CUSTOM, provider: {{name: x}}, rules: [{operation('paths: [/admin]')}]}}"],
            "GET web /",
            "",
        ),
        (
            ["{action: DENY, rules: [{}]}", "{action: CUSTOM, provider: {name: x}, rules: [{}]}"],
            "GET web /",
            "ns[shop]-policy[p1]-rule[0]",
        ),
    ],
)
def test_the_order_is_custom_deny_allow(specs, line, details):
    decision = decide(specs, asked(line))
    assert decision.allowed is (not details)
    if details:
        assert decision.details == f"rbac_access_denied_matched_policy[{details}]"


def test_a_decision_names_its_policy_and_rule():
    rules = ", ".join(operation(f"paths: [/{letter}]") for letter in "abc")
    decision = decide(["{action: DENY, rules: [" + rules + "]}", "rules: [{}]"], asked("GET web /c"))
    assert (decision.policy, decision.rule) == ("shop/p0", 2)
    decision = decide(["{action: DENY, rules: [" + rules + "]}", "rules: [{}]"], asked("GET web /d"))
    assert (decision.allowed, decision.policy, decision.rule) == (True, "shop/p1", 0)


CUSTOM = "{action: CUSTOM, provider: {name: oauth}, rules: [{}]}"


def test_whoever_is_to_be_asked_is_told_before_anything_else_is_decided():
    decision = decide(CUSTOM)
    assert (decision.allowed, decision.provider, decision.policy, decision.reason) == (
        False,
        "oauth",
        "shop/p0",
        "",
    )


@pytest.mark.parametrize(
    ("more", "allowed"), [("{}", False), ("rules: [{}]", True), ("{action: DENY, rules: [{}]}", False)]
)
def test_what_was_permitted_is_decided_by_the_others(more, allowed):
    judge = authorization(CUSTOM, more).judge(connection())
    assert judge.decide(asked()).provider == "oauth"
    decision = judge.decide(asked(), permitted=True)
    assert (decision.allowed, decision.provider) == (allowed, "")


def test_what_several_providers_are_named_for_is_refused_where_one_matches():
    other = CUSTOM.replace("oauth", "opa").replace("{}", operation("paths: [/a]"))
    judge = authorization(CUSTOM.replace("{}", operation("paths: [/b]")), other).judge(connection())
    assert judge.decide(asked("GET web /")).allowed
    decision = judge.decide(asked("GET web /a"))
    assert (decision.allowed, decision.provider, decision.policy) == (False, "", "shop/p1")
    assert decision.reason == "CUSTOM policies name several providers, and one is asked: oauth, opa"


def test_a_provider_of_a_policy_under_trial_is_none_beside_another():
    judge = authorization(CUSTOM, "DRY" + CUSTOM.replace("oauth", "opa")).judge(connection())
    assert judge.decide(asked()).provider == "oauth"


def test_a_policy_that_has_not_been_received_refuses_everybody():
    found = policies("rules: [{}]")
    decision = Authorization(found, ["shop/p0", "shop/lost"]).judge(connection()).decide(asked())
    assert (decision.allowed, decision.policy) == (False, "shop/lost")
    assert decision.details == "policy_not_enforced[shop/lost]"


def test_nothing_is_in_the_way_of_what_no_policy_concerns():
    assert Authorization({}, ()).judge(connection()).decide(asked()) is ADMITTED


@pytest.mark.parametrize(
    ("rule", "allow", "deny"),
    [
        (operation("methods: [GET]"), False, False),
        (operation("ports: ['80'], paths: ['/a']"), False, False),
        (operation("ports: ['81'], paths: ['/a']"), False, True),
        (operation("notMethods: [GET]"), False, False),
        ("{from: [{source: {namespaces: [shop]}}], to: [{operation: {hosts: [x]}}]}", False, False),
        ("{from: [{source: {namespaces: [x]}}], to: [{operation: {hosts: [x]}}]}", False, True),
        ("{to: [{operation: {hosts: [x]}}, {operation: {ports: ['80']}}]}", False, False),
        (source("requestPrincipals: ['*']"), False, False),
        (source("remoteIpBlocks: ['1.1.1.1']"), False, False),
        ("{}", True, False),
    ],
)
def test_without_http_allow_never_matches_by_it_and_deny_matches_by_the_rest(rule, allow, deny):
    for action, expected in (("ALLOW", allow), ("DENY", deny)):
        judge = authorization(f"{{action: {action}, rules: [{rule}]}}").judge(connection(), http=False)
        assert judge.decide(None).allowed is expected, action


@pytest.mark.parametrize(
    ("specs", "refuses"),
    [
        (["DRY{action: DENY, rules: [{}]}"], True),
        (["DRY{action: DENY, rules: [" + operation("methods: [PUT]") + "]}"], False),
        (["DRY{}"], True),
        (["DRYrules: [{}]"], False),
        (["DRY{}", GET_ALLOWED], False),
        (["DRY{action: CUSTOM, provider: {name: x}, rules: [{}]}"], True),
    ],
)
def test_what_is_tried_decides_nothing_and_is_told(specs, refuses):
    decision = decide(specs)
    assert decision.allowed
    assert [(one.policy, one.refuses) for one in decision.tried] == [("shop/p0", refuses)]


def test_audit_is_told():
    decision = decide(["{action: AUDIT, rules: [" + operation("methods: [GET]") + "]}", "rules: [{}]"])
    assert (decision.audited, decision.policy) == (("shop/p0",), "shop/p1")
    assert decide("{action: AUDIT, rules: [" + operation("methods: [PUT]") + "]}") is ADMITTED


# --- the way it is worked out changes nothing

segments = st.sampled_from(["", "a", "b", "a/", "a/b", "b/a/c", "/a"])
written_paths = st.one_of(
    segments.map("/{}".format),
    segments.map("/{}*".format),
    segments.map("*{}".format),
    st.sampled_from(["/{*}", "/a/{**}", "*"]),
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(
            st.fixed_dictionaries(
                {
                    "source": st.one_of(
                        st.fixed_dictionaries(
                            {
                                "principals": st.lists(
                                    st.sampled_from([PRINCIPAL, "x/*", "*"]), min_size=1, max_size=2
                                )
                            }
                        ),
                        st.fixed_dictionaries(
                            {"namespaces": st.lists(st.sampled_from(["shop", "x", "s*"]), min_size=1)}
                        ),
                        st.fixed_dictionaries({"notNamespaces": st.just(["x"])}),
                    )
                }
            ),
            min_size=1,
            max_size=2,
        ),
        "to": st.lists(
            st.fixed_dictionaries(
                {
                    "operation": st.fixed_dictionaries(
                        {"paths": st.lists(written_paths, min_size=1, max_size=3)},
                        optional={
                            "methods": st.just(["GET"]),
                            "notPaths": st.lists(written_paths, min_size=1),
                        },
                    )
                }
            ),
            min_size=1,
            max_size=2,
        ),
    },
)


def naive(policy, number, of, request):
    """The rule alone, with nothing found by anything."""
    only = HttpPolicy(policy.name, policy.namespace, HttpAction.DENY, (policy.rules[number],))
    return not Authorization({only.key: only}, [only.key]).judge(of).decide(request).allowed


@given(st.lists(rules, min_size=1, max_size=6), segments.map("/{}".format), st.booleans())
def test_rules_that_are_found_by_caller_and_segment_are_those_that_match(written, path, proved):
    spec = yaml.safe_dump({"action": "DENY", "rules": written})
    (policy,) = policies(spec).values()
    of = connection(identity=SHOP if proved else None)
    request = asked(f"GET web {path}")
    expected = next((n for n in range(len(written)) if naive(policy, n, of, request)), -1)
    assert Authorization({policy.key: policy}, [policy.key]).judge(of).decide(request).rule == expected


def test_thousands_of_rules_cost_little():
    """The bound is a hundred times what it takes here, for machines that do other things as well."""
    named = [
        {
            "from": [{"source": {"principals": [f"cluster.local/ns/n{n % 50}/sa/a{n}"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [f"/p{n}/*", f"/q{n}"]}}],
        }
        for n in range(250)
    ]
    anybodys = [{"to": [{"operation": {"paths": [f"/open{n}/*"]}}]} for n in range(250)]
    (policy,) = policies(yaml.safe_dump({"rules": named + anybodys})).values()
    found = {one.key: one for one in (replace(policy, name=f"p{n}") for n in range(10))}
    judge = Authorization(found, found).judge(connection())
    requests = [asked("GET web /open200/x"), asked("GET web /none/x")]
    began = time.perf_counter()
    for _ in range(500):
        assert [judge.decide(each).allowed for each in requests] == [True, False]
    assert (time.perf_counter() - began) / 1000 < 0.0002


# --- over changes


def test_what_has_not_changed_is_compiled_once():
    authorizations = Authorizations()
    first = policies("rules: [{}]", "{action: DENY, rules: [{}]}")
    one, both = authorizations.of(first, ("shop/p0",)), authorizations.of(first, ("shop/p0", "shop/p1"))
    assert authorizations.of(first, ("shop/p0",)) is one
    assert (one.judge(connection()).decide(asked()).allowed, decide_by(both)) == (True, False)
    second = {**first, "shop/p1": replace(first["shop/p1"], rules=())}
    assert authorizations.of(second, ("shop/p0",)) is one
    assert authorizations.of(second, ("shop/p0", "shop/p1")) is not both
    assert decide_by(authorizations.of(second, ("shop/p0", "shop/p1")))
    third = {"shop/p1": second["shop/p1"]}
    assert not decide_by(authorizations.of(third, ("shop/p0",)))
    assert not decide_by(authorizations.of({}, ("shop/p0",)))
    assert decide_by(authorizations.of(first, ("shop/p0",)))


def test_what_is_kept_of_policies_that_are_gone_is_bounded():
    authorizations, found = Authorizations(), policies("rules: [{}]")
    for number in range(5000):
        authorizations.of(found, ("shop/p0", f"shop/gone{number}"))
        assert len(authorizations._made) <= 4096
    again = dict(found)
    authorizations.of(again, ("shop/p0",))
    assert set(authorizations._made) == {("shop/p0",)}


def decide_by(authorization):
    return authorization.judge(connection()).decide(asked()).allowed


def test_what_is_kept_for_connections_is_bounded():
    found = authorization("rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]")
    kept = found.judge(connection())
    assert found.judge(connection()) is kept
    for port in range(1, 600):
        found.judge(connection(destination=f"10.96.0.1:{port}"))
    assert found.judge(connection()) is not kept
    assert not found.judge(connection("192.0.2.1:1")).decide(asked()).allowed
    assert found.judge(connection("10.2.0.1:9")).decide(asked()).allowed
