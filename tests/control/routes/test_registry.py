"""What routes refer to is found, and whoever has asked for it is told when it is another."""

from dataclasses import replace

from ztunnel.control.routes.registry import Asked, Registry, View
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.model.service import Port, Service
from ztunnel.state.destination_rule import DestinationRule, Subset
from ztunnel.state.gateway import ReferenceGrant
from ztunnel.state.meta import Meta
from ztunnel.state.route_filter import Reference
from ztunnel.state.virtual_service import VirtualService

WEB = Service("web", "shop", "web.shop.svc.cluster.local", ports=(Port(80, 8080),))


def meta(name, namespace="shop", created=""):
    return Meta(name, namespace, {}, {}, created)


def rule(name, host, *subsets, namespace="shop", export_to=(), created="", selector=None):
    found = tuple(Subset(one, {"version": f"{name}-{one}"}) for one in subsets)
    return DestinationRule(
        meta(name, namespace, created), host, found, export_to=export_to, selector=selector
    )


def registry(*objects, services=(WEB,)):
    them = Registry(MeshSettings())
    for one in services:
        assert Asked("host", one.hostname) in list(them.put_service(None, one))
    for one in objects:
        list(them.put(key_of(one), None, one))
    return them


def subset(them, name, namespace="shop", service=WEB):
    found = them.chosen(service.hostname, namespace, service.namespace).labels(name)
    return found and dict(found)["version"]


def test_rules_of_the_clients_namespace_count_before_the_services_and_the_roots():
    own = rule("own", WEB.hostname, "v1", namespace="client")
    them = registry(rule("web", "web", "v1"), own, rule("root", "*", "v1", namespace="istio-system"))
    assert subset(them, "v1", "client") == "own-v1"
    assert subset(them, "v1", "other") == "web-v1"
    far = replace(WEB, name="far", namespace="far", hostname="far.far.svc.cluster.local")
    assert subset(them, "v1", "other", far) == "root-v1"


def test_the_most_specific_host_counts_and_rules_of_one_host_are_joined_the_oldest_first():
    wide = rule("wide", "*.shop.svc.cluster.local", "v1", "v9")
    young = rule("a", "web", "v1", "v3", created="2026-01-02T00:00:00Z")
    old = rule("b", "web", "v1", "v2", created="2026-01-01T00:00:00Z")
    them = registry(wide, young, old)
    assert [subset(them, name) for name in ("v1", "v2", "v3", "v9")] == ["b-v1", "b-v2", "a-v3", None]


def test_rules_that_are_not_exported_or_for_some_workloads_only_do_not_count():
    them = registry(
        rule("hidden", WEB.hostname, "v1", namespace="shop", export_to=(".",)),
        rule("some", "web", "v2", selector={"app": "a"}),
    )
    assert (subset(them, "v1"), subset(them, "v1", "other"), subset(them, "v2")) == ("hidden-v1", None, None)


def test_a_host_is_the_own_namespaces_then_the_meshs():
    ours = Service("e", "shop", "x.example", canonical=False)
    theirs = Service("e", "other", "x.example")
    them = registry(services=(ours, theirs))
    assert them.service("x.example", "shop") is ours
    assert them.service("x.example", "third") is theirs
    assert them.service("y.example", "shop") is None
    assert them.hosts_of(("shop", "e")) == (ours,)
    assert set(them.named("x.example")) == {ours.key, theirs.key}


def test_a_change_that_no_route_can_see_tells_nobody():
    them = registry()
    assert list(them.put_service(WEB, replace(WEB, addresses=(), guards=("shop/p",)))) == []
    assert Asked("host", WEB.hostname) in list(them.put_service(WEB, replace(WEB, ports=())))
    assert Asked("host", WEB.hostname) in list(them.put_service(replace(WEB, ports=()), None))
    assert them.service(WEB.hostname, "shop") is None


def test_a_host_that_another_entry_takes_over_is_told_of_by_both_names():
    old = Service("e", "shop", "x.example")
    them = registry(services=(old,))
    told = list(them.put_service(old, replace(old, name="f")))
    assert {Asked("entry", "shop/e"), Asked("entry", "shop/f")} <= {*told}


def test_what_was_asked_is_written_down_and_told_of():
    delegate, grant = VirtualService(meta("d")), ReferenceGrant(meta("g"), (), ())
    them = registry()
    view = View(them)
    assert view.service("nowhere", "shop") is None
    assert view.delegate(("shop", "d")) is None
    assert view.entry("shop", "e") is None
    assert not view.is_granted("HTTPRoute", "a", Reference("", "Service", "shop", "web"))
    view.chosen(WEB, "shop")
    told = {
        *them.put(key_of(delegate), None, delegate),
        *them.put(key_of(grant), None, grant),
        *them.put(key_of(rule("r", "web")), None, rule("r", "web")),
    }
    assert told == {Asked("delegate", "shop/d"), Asked("grants", "shop"), Asked("rule", WEB.hostname)}
    assert told <= view.asked
    assert {Asked("host", "nowhere"), Asked("entry", "shop/e"), Asked("rule", "*")} <= view.asked
    assert view.delegate(("shop", "d")) is delegate


def test_a_grant_is_of_a_kind_a_namespace_and_maybe_a_name():
    source, target = ("gateway.networking.k8s.io", "HTTPRoute", "a"), Reference("", "Service", "shop", "web")
    them = registry(ReferenceGrant(meta("g"), (source,), (("", "Service", "web"),)))
    assert them.is_granted("HTTPRoute", "a", target)
    assert not them.is_granted("GRPCRoute", "a", target)
    assert not them.is_granted("HTTPRoute", "b", target)
    assert not them.is_granted("HTTPRoute", "a", replace(target, name="other"))
    assert not them.is_granted("HTTPRoute", "a", replace(target, namespace="b"))
    anything = ReferenceGrant(meta("g"), (source,), (("", "Service", ""),))
    list(them.put(key_of(anything), None, anything))
    assert them.is_granted("HTTPRoute", "a", replace(target, name="other"))
