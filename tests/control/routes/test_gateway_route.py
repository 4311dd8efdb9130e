"""HTTPRoutes and GRPCRoutes become rules; golden_routes/ has more of them."""

import pytest

from tests.control.objects import manifest, read, service, view
from ztunnel.control.routes.gateway_route import convert_route
from ztunnel.control.routes.route_parts import Why
from ztunnel.model.route_action import Forward, Redirect
from ztunnel.model.route_policy import ISTIO_RETRY, RetryDefault

SERVICES = (service("web"), service("far", namespace="other"))
GRANT = (
    "{from: [{group: gateway.networking.k8s.io, kind: %s, namespace: shop}], "
    "to: [{group: '', kind: Service}]}"
)
WEB = "backendRefs: [{name: web, port: 80}]"


def convert(rules, *others, kind="HTTPRoute", retries=RetryDefault()):  # noqa: B008 (a frozen value)
    objects = read(manifest(kind, "r", f"{{rules: [{rules}]}}"), *others)
    (one,) = (one for key, one in objects.items() if key.kind == kind)
    seen = view(*SERVICES, objects=objects, retries=retries)
    return convert_route(one, seen), seen


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("{name: web, port: 80}", None),
        ("{name: web}", Why.BACKEND_NOT_FOUND),
        ("{name: web, port: 81}", Why.BACKEND_NOT_FOUND),
        ("{name: nobody, port: 80}", Why.BACKEND_NOT_FOUND),
        ("{name: far, namespace: other, port: 80}", Why.NOT_PERMITTED),
        ("{name: web, namespace: shop, port: 80}", None),
        ("{kind: Gateway, name: web, port: 80}", Why.INVALID_KIND),
        ("{group: networking.istio.io, kind: Hostname, name: web.shop.svc.cluster.local, port: 80}", None),
        ("{group: networking.istio.io, kind: ServiceEntry, name: e, port: 80}", Why.BACKEND_NOT_FOUND),
        ("{name: web, port: 80, filters: [{type: ExtensionRef}]}", Why.INCOMPATIBLE),
    ],
)
def test_a_backend_that_cannot_be_used_answers_its_share_with_500(backend, why):
    found, _ = convert(f"{{backendRefs: [{backend}]}}")
    (one,) = found.rules[0].action.destinations
    assert [problem.why for problem in found.problems] == ([why] if why else [])
    assert (one.refusal.status if one.refusal else None) == (500 if why else None)


@pytest.mark.parametrize(("granted", "why"), [("HTTPRoute", []), ("GRPCRoute", [Why.NOT_PERMITTED])])
def test_a_grant_is_for_a_kind_of_route(granted, why):
    grant = manifest("ReferenceGrant", "g", GRANT % granted, namespace="other")
    found, seen = convert("{backendRefs: [{name: far, namespace: other, port: 80}]}", grant)
    assert [one.why for one in found.problems] == why
    assert ("grants", "other") in seen.asked


def test_backends_of_weight_0_get_nothing_and_are_checked_all_the_same():
    found, _ = convert(
        "{backendRefs: [{name: web, port: 80, weight: 2}, {name: nobody, port: 80, weight: 0}]}"
    )
    assert [one.weight for one in found.rules[0].action.destinations] == [2]
    assert [one.why for one in found.problems] == [Why.BACKEND_NOT_FOUND]


@pytest.mark.parametrize(
    "rule", ["{}", "{backendRefs: []}", "{backendRefs: [{name: web, port: 80, weight: 0}]}"]
)
def test_a_rule_without_a_backend_answers_500(rule):
    (one,) = convert(rule)[0].rules[0].action.destinations
    assert (one.refusal.status, one.refusal.reason) == (500, "the rule has no backend")


def test_a_filter_that_is_not_known_refuses_what_needs_it():
    found, _ = convert(f"{{filters: [{{type: ExtensionRef}}], {WEB}}}, {{{WEB}}}")
    first, second = found.rules
    assert first.action.destinations[0].refusal.status == 500
    assert second.action.destinations[0].refusal is None
    assert [one.why for one in found.problems] == [Why.UNSUPPORTED]


def test_a_redirect_is_neither_rewritten_nor_tried_again():
    found, _ = convert("{filters: [{type: RequestRedirect, requestRedirect: {hostname: a}}]}")
    (rule,) = found.rules
    assert isinstance(rule.action, Redirect)
    assert (rule.retry, rule.mirrors, rule.rewrite) == (None, (), None)


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_rule_is_named_by_itself_or_by_its_place(kind):
    found, _ = convert(f"{{name: a, {WEB}}}, {{{WEB}}}", kind=kind)
    assert [rule.name for rule in found.rules] == ["a", "shop.r.1"]
    assert {(rule.source.kind, rule.retry) for rule in found.rules} == {(kind, ISTIO_RETRY)}
    assert all(isinstance(rule.action, Forward) for rule in found.rules)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 2.5), ("timeouts: {backendRequest: 1s}, ", 1), ("timeouts: {backendRequest: 0s}, ", 0),
     ("retry: {attempts: 1}, ", 0)],
)  # fmt: skip
def test_how_long_a_try_may_take_is_the_rules_own_to_say_before_the_mesh_does(text, seconds):
    (rule,) = convert(f"{{{text}{WEB}}}", retries=RetryDefault(try_seconds=2.5))[0].rules
    assert rule.try_timeout_seconds == seconds


def test_a_mirror_that_is_not_there_is_no_reason_to_refuse():
    text = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}}}]"
    found, _ = convert(f"{{{text}, {WEB}}}")
    (rule,) = found.rules
    assert rule.mirrors[0].destination.refusal.status == 500
    assert rule.action.destinations[0].refusal is None
    assert [one.why for one in found.problems] == [Why.BACKEND_NOT_FOUND]


def test_what_is_not_acted_on_is_said():
    found, _ = convert(f"{{sessionPersistence: {{}}, {WEB}}}")
    assert [str(one) for one in found.problems] == ["rules[0].sessionPersistence: is not acted on"]
