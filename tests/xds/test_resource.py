"""Resources travel unchanged, and what cannot be used is refused by name."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.workload import Workload
from ztunnel.xds.pb import discovery_pb2, workload_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_POLICY, TYPES, name_of, parse, render, type_of

WORKLOAD = Workload("Kubernetes//Pod/shop/web-0", "web-0", "shop", addresses=(IPv4Address("10.0.0.1"),))
SERVICE = Service("web", "shop", "web.shop.svc.cluster.local", (IPv6Address("fd00::1"),))
POLICY = Policy("allow", "shop", PolicyScope.NAMESPACE, Action.ALLOW)
HTTP = HttpPolicy("allow", "shop", HttpAction.ALLOW)


@pytest.mark.parametrize(
    ("resource", "type_url", "name"),
    [
        (WORKLOAD, ADDRESS, "Kubernetes//Pod/shop/web-0"),
        (SERVICE, ADDRESS, "shop/web.shop.svc.cluster.local"),
        (POLICY, AUTHORIZATION, "shop/allow"),
        (HTTP, HTTP_POLICY, "shop/allow"),
    ],
)
def test_each_kind_travels_under_its_type_and_name(resource, type_url, name):
    sent = render(resource, "")
    assert (type_of(resource), name_of(resource), sent.name) == (type_url, name, name)
    assert parse(type_url, sent, "") == resource


def test_versions_are_equal_exactly_where_contents_are():
    services = {ServiceName("shop", f"{letter}.shop.svc.cluster.local"): () for letter in "abcdef"}
    one = Workload("uid/1/2", "web", "shop", services=services)
    same = Workload("uid/1/2", "web", "shop", services=dict(reversed(services.items())))
    other = Workload("uid/1/2", "web", "shop", healthy=False)
    assert render(one, "").version == render(same, "").version != render(other, "").version


def test_a_field_that_is_not_known_is_passed_over():
    sent = render(WORKLOAD, "")
    sent.resource.value += b"\xfa\x3e\x03new"  # field 1007, length-delimited
    assert parse(ADDRESS, sent, "") == WORKLOAD


def renamed(sent, name):
    sent.name = name
    return sent


def retyped(sent, type_url):
    sent.resource.type_url = type_url
    return sent


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (renamed(render(WORKLOAD, ""), "other"), "other: names itself"),
        (retyped(render(WORKLOAD, ""), AUTHORIZATION), "Kubernetes//Pod/shop/web-0: is of type"),
        (discovery_pb2.Resource(name="empty"), "empty: is of type ''"),
        (retyped(discovery_pb2.Resource(name="none"), ADDRESS), "none: is neither a workload nor a service"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(untrusted, reason):
    with pytest.raises(PeerError, match=reason):
        parse(ADDRESS, untrusted, "")


def test_bytes_that_are_no_message_are_refused():
    sent = render(WORKLOAD, "")
    sent.resource.value = b"\xff\xff\xff"
    with pytest.raises(PeerError, match="cannot be decoded"):
        parse(ADDRESS, sent, "")


@given(st.sampled_from(TYPES), st.binary(max_size=200))
def test_garbage_is_refused_or_is_a_resource(type_url, garbage):
    sent = discovery_pb2.Resource(name="x")
    sent.resource.type_url, sent.resource.value = type_url, garbage
    try:
        found = parse(type_url, sent, "")
    except PeerError:
        return
    assert name_of(found) == "x"


def test_a_message_may_hold_text_that_is_no_identity_and_stays_what_it_is():
    message = workload_pb2.Address(workload=workload_pb2.Workload(uid="a/b/c", namespace="ns"))
    sent = discovery_pb2.Resource(name="a/b/c")
    sent.resource.type_url, sent.resource.value = ADDRESS, message.SerializeToString()
    found = parse(ADDRESS, sent, "")
    assert (found.service_account, found.trust_domain, found.cluster, found.capacity) == (
        "default",
        "cluster.local",
        "Kubernetes",
        1,
    )
