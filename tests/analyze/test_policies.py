"""Policies that do nothing, or other things than they seem to."""

from __future__ import annotations

from tests.analyze.parts import AMBIENT, OUTSIDE, WEB, codes, findings

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: %s}}, rules: [{}]}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: %s}
spec: {mtls: {mode: STRICT}}
"""
REQUEST = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {selector: {matchLabels: {app: web}}}
"""


TARGETED = (
    "targetRefs: [{kind: Service, name: web}], "
    "jwtRules: [{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys'}]"
)


SERVED = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: way, namespace: shop}
spec: {ports: [{name: tls-hbone, port: 15008}]}
"""


def test_a_selector_that_matches_nothing_is_found() -> None:
    assert codes(AMBIENT, WEB, POLICY % "web") == []
    assert codes(AMBIENT, WEB, POLICY % "wep") == [("IST0127", "AuthorizationPolicy shop/p")]
    assert codes(AMBIENT, WEB, OUTSIDE, REQUEST.replace("web", "wep")) == [
        ("IST0127", "RequestAuthentication shop/jwt"),
        ("IST0167", "RequestAuthentication shop/jwt"),
    ]


def test_a_policy_of_the_root_namespace_selects_everywhere() -> None:
    root = (POLICY % "web").replace("namespace: shop", "namespace: istio-system")
    assert codes(AMBIENT, WEB, root) == []


def test_strict_protects_nobody_outside_of_the_mesh() -> None:
    (found,) = findings(OUTSIDE, STRICT % "bank")
    assert (found.code, found.what) == ("ZT0101", "PeerAuthentication bank/strict")
    assert "bank/web-" in found.message


def test_strict_names_the_clients_that_it_refuses() -> None:
    labels = "{istio.io/dataplane-mode: none}"
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: old, namespace: shop, labels: {labels}}}\n"
    pod += "spec: {containers: [{name: c}]}\n"
    selecting = (STRICT % "shop").replace("spec: {", "spec: {selector: {matchLabels: {app: web}}, ")
    (found,) = findings(AMBIENT, WEB, pod, selecting)
    assert (found.code, found.message.rpartition(": ")[2]) == ("ZT0102", "shop/old")
    assert codes(AMBIENT, WEB, STRICT % "shop") == []


def test_a_permissive_policy_is_no_finding() -> None:
    assert codes(OUTSIDE, (STRICT % "bank").replace("STRICT", "PERMISSIVE")) == []


def test_jwts_need_a_waypoint_and_are_for_what_it_stands_before() -> None:
    assert codes(AMBIENT, WEB, REQUEST) == [("IST0167", "RequestAuthentication shop/jwt")]
    request = REQUEST.replace("selector: {matchLabels: {app: web}}", TARGETED)
    (found,) = findings(AMBIENT, WEB, SERVED, request)
    assert (found.code, found.what) == ("IST0167", "RequestAuthentication shop/jwt")
    assert "shop/web is not bound to a waypoint" in found.message
    labelled = AMBIENT.replace("ambient}", "ambient, istio.io/use-waypoint: way}")
    (found,) = findings(labelled, GATEWAY, WEB, SERVED, REQUEST)
    assert "without targetRefs it does nothing" in found.message
    assert findings(labelled, GATEWAY, WEB, SERVED, request) == []


def test_http_rules_at_l4_are_ineffective() -> None:
    rules = "{rules: [{to: [{operation: {methods: [GET]}}]}]}"
    (found,) = findings(AMBIENT, WEB, (POLICY % "web").partition("spec")[0] + f"spec: {rules}\n")
    assert (found.code, found.line) == ("IST0167", 2)
    assert "HTTP attributes (found: methods)" in found.message


def test_other_remarks_of_the_translation_are_findings_too() -> None:
    entry = (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\n"
        "spec: {hosts: [e.example], addresses: [192.0.2.0/24], resolution: STATIC,\n"
        "  ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]}\n"
    )
    (found,) = [each for each in findings(AMBIENT, WEB, entry) if each.code == "ZT0100"]
    assert (found.what, "192.0.2.0/24" in found.message) == ("ServiceEntry shop/e", True)


def limits(target: str, more: str) -> str:
    return (
        "apiVersion: ztunnel.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: p, namespace: shop}\n"
        f"spec: {{targetRefs: [{target}], {more}}}\n"
    )


ONE = "local: {rules: [{limit: {requests: 1, unit: Second}}]}"
ASKS = "global: {host: %s, port: %s, domain: d, descriptors: [{entries: [{value: a}]}]%s}"
COUNTS = "web.shop.svc.cluster.local"


def test_rate_limits_need_a_waypoint_and_somebody_who_counts() -> None:
    target = "{kind: Service, group: '', name: web}"
    (found,) = findings(AMBIENT, WEB, SERVED, limits(target, ONE))
    assert (found.code, found.what) == ("IST0167", "RateLimitPolicy shop/p")
    assert "shop/web is not bound to a waypoint" in found.message
    labelled = AMBIENT.replace("ambient}", "ambient, istio.io/use-waypoint: way}")
    base = (labelled, GATEWAY, WEB, SERVED)
    assert findings(*base, limits(target, ONE)) == []
    assert findings(*base, limits(target, ASKS % (COUNTS, 80, ""))) == []
    for asks, said in (
        (ASKS % ("nowhere.shop", 80, ""), "there is no service nowhere.shop: requests are let through"),
        (
            ASKS % (COUNTS, 81, ", failureModeDeny: true"),
            f"{COUNTS} has no port 81: requests are answered 500",
        ),
    ):
        (found,) = findings(*base, limits(target, asks))
        assert (found.code, found.what) == ("IST0101", "RateLimitPolicy shop/p")
        assert said in found.message


def test_a_limit_of_nothing_is_remarked_upon() -> None:
    labelled = AMBIENT.replace("ambient}", "ambient, istio.io/use-waypoint: way}")
    target = "{kind: Gateway, group: gateway.networking.k8s.io, name: way}"
    found = findings(labelled, GATEWAY, WEB, SERVED, limits(target, ONE.replace("1,", "0,")))
    assert [(one.code, one.message) for one in found] == [
        ("ZT0100", "rule 0: a limit of no requests refuses all that it is for")
    ]


CUSTOM = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: web}]
  action: CUSTOM
  provider: {name: asks}
  rules: [{}]
"""
PROVIDERS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: ztunnel-mesh, namespace: ztunnel-system}
data: {mesh: "extensionProviders: [{name: asks, envoyExtAuthzHttp: {service: %s, port: %s}}]"}
"""


def test_a_custom_policy_without_anybody_to_ask_is_found() -> None:
    def of(*more: str) -> list[str]:
        every = findings(AMBIENT, WEB, SERVED, GATEWAY, CUSTOM, *more)
        return [
            one.message
            for one in every
            if one.what == "AuthorizationPolicy shop/ask" and "asks" in one.message
        ]

    refused = ": what the policy matches is refused"
    assert of() == [f"there is no provider 'asks' in the mesh config (authorizers: none){refused}"]
    host = "web.shop.svc.cluster.local"
    assert of(PROVIDERS % ("nobody", 80)) == [f"the provider 'asks': there is no service nobody:80{refused}"]
    assert of(PROVIDERS % (host, 81)) == [f"the provider 'asks': shop/{host} has no port 81{refused}"]
    assert of(PROVIDERS % (host, 80)) == []


TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: shop}
spec: {%s}
"""


def test_telemetry_that_names_nobody_or_is_for_nobody_is_found() -> None:
    found = findings(AMBIENT, WEB, TELEMETRY % "tracing: [{providers: [{name: nobody}]}]")
    (one,) = [each for each in found if each.what == "Telemetry shop/t"]
    assert one.code == "IST0101"
    assert "tracing: provider 'nobody' is not known" in one.message
    found = findings(AMBIENT, WEB, TELEMETRY % "selector: {matchLabels: {app: web}}, accessLogging: [{}]")
    (one,) = [each for each in found if each.what == "Telemetry shop/t"]
    assert one.code == "IST0167"
    found = findings(AMBIENT, WEB, TELEMETRY % "accessLogging: [{providers: [{name: envoy}]}]")
    assert not [each for each in found if each.what == "Telemetry shop/t"]
    both = "selector: {matchLabels: {app: web}}, targetRefs: [{kind: Gateway, name: wp}]"
    assert ("IST0106", "document") in codes(AMBIENT, WEB, TELEMETRY % both)


def test_of_two_telemetries_for_a_namespace_the_one_that_does_not_count_is_found() -> None:
    wide = TELEMETRY % "accessLogging: [{providers: [{name: envoy}]}]"
    found = [
        each
        for each in findings(AMBIENT, WEB, wide, wide.replace("name: t,", "name: u,"))
        if each.code == "IST0160"
    ]
    assert [each.what for each in found] == ["Telemetry shop/u"]
    assert "Telemetry shop/t is older" in found[0].message
