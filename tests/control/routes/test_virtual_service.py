"""A VirtualService becomes rules; golden_routes/ has more of them."""

import pytest

from tests.control.objects import manifest, read, service, view
from ztunnel.control.routes.route_parts import Why
from ztunnel.control.routes.virtual_service import convert_virtual_service, is_of_mesh
from ztunnel.model.route_action import Forward, Redirect, Refusal
from ztunnel.model.route_policy import ISTIO_RETRY
from ztunnel.state.virtual_service import VirtualService

TO = "route: [{destination: {host: web}}]"
SERVICES = (service("web"), service("db", 1, 2))


def convert(http, *others, hosts="[web]", more=""):
    objects = read(manifest("VirtualService", "v", f"{{hosts: {hosts}, http: [{http}]{more}}}"), *others)
    (one,) = (one for one in objects.values() if isinstance(one, VirtualService) and one.meta.name == "v")
    seen = view(*SERVICES, objects=objects)
    return convert_virtual_service(one, seen), seen


def destinations(http):
    found, _ = convert(http)
    return found.rules[0].action.destinations


def test_without_a_word_of_retries_istios_default_holds_and_none_with_attempts_0():
    assert convert(f"{{{TO}}}")[0].rules[0].retry == ISTIO_RETRY
    assert convert(f"{{{TO}, retries: {{attempts: 0}}}}")[0].rules[0].retry is None
    assert convert("{redirect: {uri: /x}}")[0].rules[0].retry is None


def test_what_is_not_sent_on_is_neither_rewritten_nor_mirrored():
    """The model refuses such a rule, and Istio passes over what it says."""
    found, _ = convert("{directResponse: {status: 200}, rewrite: {uri: /}, mirror: {host: web}, timeout: 1s}")
    (rule,) = found.rules
    assert (rule.rewrite, rule.mirrors, rule.retry, rule.timeout_seconds) == (None, (), None, 0.0)


@pytest.mark.parametrize(
    ("target", "port", "why"),
    [
        ("{host: web}", 80, None),
        ("{host: web, port: {number: 80}}", 80, None),
        ("{host: db, port: {number: 2}}", 2, None),
        ("{host: db}", 0, Why.PORT_REQUIRED),
        ("{host: web, port: {number: 81}}", 81, Why.NOT_FOUND),
        ("{host: nobody}", 0, Why.NOT_FOUND),
        ("{host: web, subset: v1}", 80, Why.NOT_FOUND),
    ],
)
def test_a_destination_has_the_port_that_is_said_or_the_only_one(target, port, why):
    found, _ = convert(f"{{route: [{{destination: {target}}}]}}")
    (one,) = found.rules[0].action.destinations
    assert one.port == port
    assert [problem.why for problem in found.problems] == ([why] if why else [])
    assert (one.refusal is not None) == (why is Why.NOT_FOUND)
    assert one.refusal is None or (one.refusal.status, bool(one.refusal.reason)) == (503, True)


def test_weights_of_0_are_left_out_but_for_one_that_is_alone():
    assert [one.weight for one in destinations("{route: [{destination: {host: web}, weight: 0}]}")] == [1]
    text = "{route: [{destination: {host: web}, weight: 3}, {destination: {host: db}, weight: 0}]}"
    assert [one.weight for one in destinations(text)] == [3]


def test_a_subset_is_asked_for_and_what_was_asked_is_known():
    rule = manifest("DestinationRule", "r", "{host: web, subsets: [{name: v1, labels: {b: '2', a: '1'}}]}")
    found, seen = convert("{route: [{destination: {host: web, subset: v1}}]}", rule)
    (one,) = found.rules[0].action.destinations
    assert (one.subset, one.labels, found.problems) == ("v1", (("a", "1"), ("b", "2")), ())
    assert {each.what for each in seen.asked} == {"host", "rule", "retries"}


def test_the_authority_is_the_rewrites_or_that_which_headers_set():
    rule = convert(f"{{{TO}, rewrite: {{uri: /x}}, headers: {{request: {{set: {{host: h}}}}}}}}")[0].rules[0]
    assert (rule.rewrite.authority, rule.rewrite.path.text) == ("h", "/x")
    assert rule.edits.request.set == ()
    found, _ = convert("{redirect: {authority: a}, headers: {request: {set: {host: h}}}}")
    assert isinstance(found.rules[0].action, Redirect)


def test_a_rule_all_of_whose_matches_are_left_out_is_for_nobody_and_not_for_everybody():
    found, _ = convert(f"{{match: [{{sourceLabels: {{a: b}}}}], {TO}}}")
    assert (found.rules, [one.why for one in found.problems]) == ((), [Why.REMARK])
    found, _ = convert(f"{{match: [{{sourceNamespace: b}}, {{uri: {{prefix: /a}}}}], {TO}}}")
    assert [one.path.text for one in found.rules[0].matches] == ["/a"]
    found, _ = convert(f"{{match: [{{gateways: [edge]}}], {TO}}}", more=", gateways: [mesh, edge]")
    assert (found.rules, found.problems) == ((), ())


def test_one_for_gateways_only_has_no_rules_here():
    found, _ = convert(f"{{{TO}}}", more=", gateways: [edge]")
    assert found.rules == ()
    (one,) = read(
        manifest("VirtualService", "v", f"{{hosts: [a], gateways: [mesh], http: [{{{TO}}}]}}")
    ).values()
    assert is_of_mesh(one)


def test_rules_for_connections_are_for_ports_subnets_and_the_services_that_their_sni_names():
    tcp = f"{{match: [{{port: 80, destinationSubnets: [10.0.0.0/8]}}, {{sourceLabels: {{a: b}}}}], {TO}}}"
    tls = f"{{match: [{{sniHosts: ['*.shop.svc.cluster.local']}}], {TO}}}"
    (one,) = read(manifest("VirtualService", "v", f"{{hosts: [web], tcp: [{tcp}], tls: [{tls}]}}")).values()
    found = convert_virtual_service(one, view(*SERVICES))
    first, second = found.connections
    assert (first.hosts, first.is_for("web.shop.svc.cluster.local"), first.is_for("x.org")) == (
        ("*.shop.svc.cluster.local",), True, False,
    )  # fmt: skip
    assert second.is_for("x.org")
    assert [str(each) for each in second.rule.subnets] == ["10.0.0.0/8"]
    assert second.rule.ports == (80,)
    assert [each.field for each in found.problems] == ["tcp[0].match"]
    assert found.rules == ()


def test_names_in_a_delegate_are_of_its_own_namespace():
    delegate = manifest("VirtualService", "d", f"{{http: [{{{TO}}}]}}", namespace="other")
    found, seen = convert("{delegate: {name: d, namespace: other}}", delegate)
    (one,) = found.rules[0].action.destinations
    assert one.refusal == Refusal(503, "there is no service web.other.svc.cluster.local")
    assert ("delegate", "other/d") in seen.asked
    assert found.rules[0].source.name == "v"
    assert isinstance(found.rules[0].action, Forward)


def test_headers_of_a_root_that_its_delegate_overrides_are_said():
    """istio/istio#60812, #48604: the root's are lost without a word where the delegate has any."""
    below = f"{{http: [{{{TO}, headers: {{request: {{set: {{a: b}}}}}}}}, {{{TO}}}]}}"
    delegate = manifest("VirtualService", "d", below)
    found, _ = convert("{delegate: {name: d}, headers: {request: {set: {c: d}}}}", delegate)
    assert [rule.edits.request.set for rule in found.rules] == [(("a", "b"),), (("c", "d"),)]
    assert [str(one) for one in found.problems] == [
        "http[0].headers: headers of http[0] of shop/d count, and these do not"
    ]


def test_more_attempts_than_there_can_be_are_said():
    found, _ = convert(f"{{{TO}, retries: {{attempts: 99}}}}")
    assert found.rules[0].retry.attempts == 10
    assert [str(one) for one in found.problems] == ["http[0].retries.attempts: 99 are taken as 10"]
