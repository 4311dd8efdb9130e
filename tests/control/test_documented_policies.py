"""What becomes of the requests of Istio's own tasks about policies and tokens, and of its integration tests:
objects as they are documented, bound to a service behind a waypoint, and asked by the code that a waypoint
decides with."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from tests.l7.issuers import claims, jwk, jwks, token
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import translate
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.waypoint import HttpCall
from ztunnel.state.delta import apply
from ztunnel.state.world import World

SETTINGS = MeshSettings()


def pod(name: str, namespace: str, ip: str, account: str = "", labels: str = "") -> str:
    return (
        "apiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}{labels}}}}}\n"
        f"spec: {{nodeName: n1, serviceAccountName: {account or name}, containers: [{{name: c}}]}}\n"
        f"status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], "
        "conditions: [{type: Ready, status: 'True'}]}\n---\n"
    )


def space(name: str) -> str:
    labels = "{istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}"
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n---\n"


GATEWAY_NAME = ", gateway.networking.k8s.io/gateway-name: waypoint"
MESH = (
    space("foo") + "apiVersion: v1\nkind: Namespace\n"
    "metadata: {name: bar, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
    "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n"
    + pod("sleep", "foo", "10.0.0.1")
    + pod("sleep", "bar", "10.0.0.2")
    + pod("httpbin", "foo", "10.0.0.3")
    + pod("waypoint-1", "foo", "10.0.0.9", "waypoint", GATEWAY_NAME)
    + "apiVersion: v1\nkind: Service\nmetadata: {name: httpbin, namespace: foo}\n"
    "spec: {clusterIP: 10.96.0.1, selector: {app: httpbin}, "
    "ports: [{name: http, port: 8000, targetPort: 80}]}\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: {name: waypoint, namespace: foo}\n"
    "spec: {clusterIP: 10.96.0.9, selector: {app: waypoint-1}, ports: [{name: mesh, port: 15008}]}\n---\n"
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
    "metadata: {name: waypoint, namespace: foo, labels: {istio.io/waypoint-for: service}}\n"
    "spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n"
    "status: {addresses: [{type: Hostname, value: waypoint.foo.svc.cluster.local}]}\n---\n"
)
HTTPBIN = "targetRefs: [{kind: Service, group: '', name: httpbin}]"


def policy(name: str, spec: str, targets: str = HTTPBIN) -> str:
    body = "".join(f"  {line}\n" for line in (targets, *spec.strip("\n").splitlines()))
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: foo}}\nspec:\n{body}---\n"
    )


class Served:
    """httpbin behind its waypoint, with these objects."""

    def __init__(self, *texts: str, settings: MeshSettings = SETTINGS) -> None:
        found = gather({"x.yaml": MESH + "".join(texts)}, Inventory())
        assert found.faults == ()
        translation = translate(found, settings)
        self.warnings = translation.warnings
        http = (one for held in translation.http.values() for one in held.values())
        parts = translation.addresses.values(), translation.policies.values(), translation.routes.values()
        self.world, _ = apply(World(settings.network), chain(*parts, http))

    def why(
        self,
        path: str = "/ip",
        method: str = "GET",
        *,
        of: str = "foo/sleep",
        bearer: bytes = b"",
        **headers: str,
    ) -> str:
        """Why the waypoint refuses it; empty: it does not."""
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        fields += [("authorization", f"Bearer {bearer.decode()}")] if bearer else []
        asked = HttpCall(method, path, tuple(fields), time.time())
        found = explain_call(self.world, find_call(self.world, of, "httpbin.foo:8000"), http=asked)
        (way,) = found.paths
        assert way.to.startswith("foo/waypoint")
        return "" if way.allowed else way.reason

    def passes(self, path: str = "/ip", method: str = "GET", **more: Any) -> bool:
        return not self.why(path, method, **more)


def test_access_control_for_http_traffic() -> None:
    """tasks/security/authorization/authz-http."""
    nothing = policy("allow-nothing", "rules: []")
    assert not Served(nothing).passes()
    viewer = policy("viewer", "action: ALLOW\nrules:\n- to:\n  - operation:\n      methods: ['GET']")
    it = Served(nothing, viewer)
    assert it.passes("/productpage")
    assert not it.passes("/productpage", "POST")
    of = "action: ALLOW\nrules:\n- from:\n  - source:\n      principals: ['cluster.local/ns/foo/sa/sleep']\n"
    it = Served(policy("details-viewer", of + "  to:\n  - operation:\n      methods: ['GET']"))
    assert it.passes()
    assert not it.passes(method="PUT")
    assert not it.passes(of="bar/sleep")


def test_explicit_denial() -> None:
    """tasks/security/authorization/authz-deny."""
    deny = "action: DENY\nrules:\n- to:\n  - operation:\n      methods: ['GET']\n"
    it = Served(policy("deny-method-get", deny))
    assert not it.passes("/get")
    assert it.passes("/post", "POST")
    deny = policy(
        "deny-method-get", deny + "  when:\n  - key: request.headers[x-token]\n    notValues: ['admin']"
    )
    it = Served(deny)
    assert it.passes("/get", x_token="admin")
    assert not it.passes("/get", x_token="guest")
    allow = "action: ALLOW\nrules:\n- to:\n  - operation:\n      paths: ['/ip']"
    it = Served(deny, policy("allow-path-ip", allow))
    assert not it.passes("/ip", x_token="guest")
    assert it.passes("/ip", x_token="admin")
    assert not it.passes("/get", x_token="admin")


# --- tokens

WHO = "testing@secure.istio.io"


def authentication(*issuers: str) -> str:
    rules = ", ".join(f"{{issuer: '{each}', jwks: '{jwks(jwk('EdDSA'))}'}}" for each in issuers)
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: jwt-example, namespace: foo}\n"
        f"spec: {{{HTTPBIN}, jwtRules: [{rules}]}}\n---\n"
    )


def signed(issuer: str = WHO, subject: str = WHO, **more: Any) -> bytes:
    made = claims(**{"iss": issuer, "sub": subject, "iat": None, "exp": int(time.time()) + 86_400, **more})
    return token(made, "EdDSA")


def test_tokens_and_claims_that_are_lists() -> None:
    """tasks/security/authorization/authz-jwt."""
    it = Served(authentication(WHO))
    assert "Jwt is not in the form of" in it.why("/headers", bearer=b"invalidToken")
    assert it.passes("/headers")
    require = f"action: ALLOW\nrules:\n- from:\n  - source:\n      requestPrincipals: ['{WHO}/{WHO}']\n"
    it = Served(authentication(WHO), policy("require-jwt", require))
    assert it.passes("/headers", bearer=signed())
    assert not it.passes("/headers")
    require += "  when:\n  - key: request.auth.claims[groups]\n    values: ['group1']"
    it = Served(authentication(WHO), policy("require-jwt", require))
    assert it.passes("/headers", bearer=signed(groups=["group1", "group2"], scope=["scope1", "scope2"]))
    assert not it.passes("/headers", bearer=signed())


def test_a_token_is_required_for_some_paths() -> None:
    """tasks/security/authentication/authn-policy, Require valid tokens per-path."""
    without = "action: DENY\nrules:\n- from:\n  - source:\n      notRequestPrincipals: ['*']\n"
    it = Served(authentication(WHO), policy("frontend-ingress", without))
    assert not it.passes("/headers")
    assert it.passes("/headers", bearer=signed())
    assert not it.passes("/headers", bearer=signed(exp=1))
    it = Served(
        authentication(WHO),
        policy("frontend-ingress", without + "  to:\n  - operation:\n      paths: ['/headers']"),
    )
    assert not it.passes("/headers")
    assert it.passes("/ip")


ONE, TWO = "test-issuer-1@istio.io", "test-issuer-2@istio.io"
JWT_RULES = "rules:\n" + "".join(
    f"- to: [{{operation: {{paths: ['{path}'], methods: [GET]}}}}]\n  {part}\n"
    for path, part in (
        ("/token1", f"from: [{{source: {{requestPrincipals: ['{ONE}/sub-1']}}}}]"),
        ("/token2", "when: [{key: 'request.auth.claims[groups]', values: [group-2]}]"),
        ("/tokenAny", "from: [{source: {requestPrincipals: ['*']}}]"),
        ("/permission", "when: [{key: 'request.auth.claims[permission]', values: [write, append]}]"),
        ("/nested-key1", "when: [{key: 'request.auth.claims[nested][key1]', values: [valueB]}]"),
        ("/nested-non-exist", "when: [{key: 'request.auth.claims[nested][non-exist]', values: [valueC]}]"),
        ("/nested-key2", "when: [{key: 'request.auth.claims[nested][key2]', values: [valueC]}]"),
        ("/nested-2-key1", "when: [{key: 'request.auth.claims[nested][nested-2][key1]', values: [valueA]}]"),
        ("/valid-jwt", "when: [{key: request.auth.principal, values: ['*']}]"),
        ("*/presenter", "when: [{key: request.auth.presenter, values: [bar]}]"),
        ("*/audiences", "when: [{key: request.auth.audiences, values: [foo]}]"),
        ("/token3", f"from: [{{source: {{notRequestPrincipals: ['{ONE}/sub-1']}}}}]"),
    )
)
TOKENS = {
    "none": b"",
    "1": signed(ONE, "sub-1", groups=["group-1"]),
    "2": signed(TWO, "some-other-sub", groups=["group-2"]),
    "permission": signed(TWO, "sub-1", permission="read write"),
    "nested 1": signed(ONE, "sub-1", nested={"key1": "valueB", "nested-2": {"key1": "valueA"}}),
    "nested 2": signed(ONE, "sub-1", nested={"key1": "valueA", "key2": ["valueC", "valueD"]}),
    "azp": signed(ONE, "sub-1", azp="bar", aud="foo"),
}


@pytest.mark.parametrize(
    ("whose", "path", "passes"),
    [
        ("none", "/token1", False),
        ("none", "/token2", False),
        ("none", "/tokenAny", False),
        ("none", "/valid-jwt", False),
        ("1", "/token1", True),
        ("1", "/token2", False),
        ("1", "/token3", False),
        ("1", "/tokenAny", True),
        ("1", "/permission", False),
        ("1", "/valid-jwt", True),
        ("1", "/a/presenter", False),
        ("2", "/token1", False),
        ("2", "/token2", True),
        ("2", "/token3", True),
        ("2", "/tokenAny", True),
        ("2", "/permission", False),
        ("permission", "/permission", True),
        ("nested 1", "/nested-key1", True),
        ("nested 1", "/nested-key2", False),
        ("nested 1", "/nested-2-key1", True),
        ("nested 1", "/nested-non-exist", False),
        ("nested 2", "/nested-key1", False),
        ("nested 2", "/nested-key2", True),
        ("nested 2", "/nested-2-key1", False),
        ("nested 2", "/nested-non-exist", False),
        ("azp", "/a/presenter", True),
        ("azp", "/a/audiences", True),
    ],
)
def test_claims_as_istios_own_tests_ask(whose: str, path: str, passes: bool) -> None:
    """istio/istio tests/integration/security: TestAuthz_JWT."""
    it = Served(authentication(ONE, TWO), policy("jwt", JWT_RULES))
    assert it.passes(path, bearer=TOKENS[whose]) is passes


# --- paths

TEMPLATES = policy(
    "templates",
    "action: ALLOW\nrules:\n- to:\n  - operation:\n"
    "      paths: ['/allow/admin/{**}', '/foo/{*}/bar/{**}', '/store/{**}/cart']",
)
PUBLIC = policy("public", "rules:\n- to:\n  - operation:\n      paths: ['/public*']\n      methods: ['GET']")
PRECEDENCE = policy("deny", "action: DENY\nrules:\n- to: [{operation: {paths: ['/allow/admin']}}]") + policy(
    "allow", "action: ALLOW\nrules:\n- to: [{operation: {paths: ['/allow*']}}]"
)


@pytest.mark.parametrize(
    ("text", "path", "passes"),
    [
        *[(TEMPLATES, *each) for each in (
            ("/allow/admin/", True), ("/allow/admin", False), ("/allow/user/", False),
            ("/allow/admin?param=value", False), ("/allow", False), ("/allow/admin/temp", True),
            ("/allow/admin/foo/temp.txt", True), ("/foo/buzz/bar/bat.txt", True),
            ("/foo/buzz/bar/bat/fuzz.txt", True), ("/foo/bar/bat.txt", False), ("/foo//bar/bat.txt", False),
            ("/foo/buzz/bar/bat", True), ("/store//cart", True), ("/store/cart", False),
            ("/store/a/b/cart", True),
        )],
        *[(PUBLIC, *each) for each in (
            ("/public", True), ("/public/../public", True), ("/private", False),
            ("/public/../private", False),
            ("/public/./../private", False), ("/public/.././private", False),
            ("/public/%2E%2E/private", False), ("/public/%2e%2e/private", False),
            ("/public/%2E/%2E%2E/private", False), ("/public/%2E%2E/%2E/private", False),
        )],
        *[(PRECEDENCE, *each) for each in (
            ("/allow/admin", False), ("/allow/admin?param=value", False), ("/allow", True),
            ("/allow?param=value", True),
        )],
    ],
)  # fmt: skip
def test_paths_as_istios_own_tests_ask(text: str, path: str, passes: bool) -> None:
    """istio/istio tests/integration/security: TestAuthz_PathTemplating and those beside it."""
    assert Served(text).passes(path) is passes


# --- whom, and who is asked


@pytest.mark.parametrize(
    ("written", "aliases", "passes"),
    [
        ("old-td/ns/foo/sa/sleep", (), False),
        ("old-td/ns/foo/sa/sleep", ("old-td",), True),
        ("new-td/ns/foo/sa/sleep", ("old-td",), True),
        ("cluster.local/ns/foo/sa/sleep", ("old-td",), True),
        ("old-td/ns/bar/sa/sleep", ("old-td",), False),
    ],
)
def test_a_trust_domain_that_has_moved(written: str, aliases: tuple[str, ...], passes: bool) -> None:
    """tasks/security/authorization/authz-td-migration: callers have identities of new-td by now."""
    settings = replace(SETTINGS, trust_domain="new-td", trust_domain_aliases=aliases)
    rules = f"rules:\n- from: [{{source: {{principals: ['{written}']}}}}]\n"
    rules += "  to: [{operation: {methods: [GET]}}]"
    assert Served(policy("service-httpbin", rules), settings=settings).passes() is passes


def test_a_policy_for_all_of_a_waypoint() -> None:
    """ambient/usage/waypoint, Attach a L7 policy to the entire waypoint proxy."""
    whole = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]"
    rules = "action: ALLOW\nrules:\n- from:\n  - source:\n      namespaces: ['foo', 'istio-system']\n"
    it = Served(policy("viewer", rules + "  to:\n  - operation:\n      methods: ['GET']", whole))
    assert it.passes()
    assert not it.passes(method="POST")
    assert not it.passes(of="bar/sleep")


def test_the_first_example_of_the_reference() -> None:
    """reference/config/security/authorization-policy."""
    rules = (
        "action: ALLOW\nrules:\n- from:\n  - source: {principals: ['cluster.local/ns/foo/sa/sleep']}\n"
        "  - source: {namespaces: [test]}\n  to:\n  - operation: {methods: [GET], paths: ['/info*']}\n"
        "  - operation: {methods: [POST], paths: ['/data']}\n"
        f"  when:\n  - {{key: 'request.auth.claims[iss]', values: ['{WHO}']}}"
    )
    it = Served(authentication(WHO), policy("httpbin", rules))
    assert it.passes("/information", bearer=signed())
    assert it.passes("/data", "POST", bearer=signed())
    assert not it.passes("/data", bearer=signed())
    assert not it.passes("/information")
    assert not it.passes("/information", of="bar/sleep", bearer=signed())


def test_external_authorization() -> None:
    """tasks/security/authorization/authz-custom; its ports stand in quotes."""
    mesh = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ztunnel-mesh, namespace: ztunnel-system}\ndata:\n"
        "  mesh: |-\n    extensionProviders:\n    - name: sample-ext-authz-grpc\n      envoyExtAuthzGrpc:\n"
        '        service: "httpbin.foo.svc.cluster.local"\n        port: "8000"\n'
        "    - name: sample-ext-authz-http\n      envoyExtAuthzHttp:\n"
        '        service: "httpbin.foo.svc.cluster.local"\n        port: "8000"\n'
        '        includeRequestHeadersInCheck: ["x-ext-authz"]\n---\n'
    )
    asks = "action: CUSTOM\nprovider: {name: sample-ext-authz-%s}\n"
    asks += "rules:\n- to: [{operation: {paths: ['/headers']}}]"
    for speech in ("grpc", "http"):
        it = Served(mesh, policy("ext-authz", asks % speech))
        call = find_call(it.world, "foo/sleep", "httpbin.foo:8000")
        said = [
            explain_call(it.world, call, http=HttpCall("GET", path)).paths[0].reason
            for path in ("/headers", "/ip")
        ]
        assert f"asks sample-ext-authz-{speech}" in said[0], said
        assert "asks" not in said[1]
    assert not Served(policy("ext-authz", asks % "grpc")).passes("/headers")  # nobody of that name


def test_a_dry_run_refuses_nobody() -> None:
    """tasks/security/authorization/authz-dry-run."""
    text = policy("deny-path-headers", "action: DENY\nrules:\n- to: [{operation: {paths: ['/headers']}}]")
    assert not Served(text).passes("/headers")
    assert Served(
        text.replace("namespace: foo}", "namespace: foo, annotations: {istio.io/dry-run: 'true'}}", 1)
    ).passes("/headers")
