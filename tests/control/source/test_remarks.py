"""Labels that decide nothing, fields that are not honoured and pods without an address are told."""

from ipaddress import ip_network

import pytest

from ztunnel.control.source.remarks import remark
from ztunnel.model.traffic import UNSAID, Balance, Balancing, PortTraffic, Traffic
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.kube import Namespace, Node, Pod
from ztunnel.state.meta import Meta
from ztunnel.state.networking import Resolution, ServiceEntry


def meta(name, namespace="shop", **labels):
    return Meta(name, namespace, {key.replace("_", "/"): value for key, value in labels.items()}, {})


def pod(phase="", **labels):
    return Pod(meta("a", **labels), "n1", "default", False, {}, (), phase, True)


def entry(resolution=Resolution.NONE, addresses=(), labels=None, **more):
    return ServiceEntry(
        Meta("a", "shop", labels or {}, {}), ("a.example",), addresses, (), resolution, **more
    )


NOBODY = "resolution STATIC without endpoints or a workloadSelector: nobody serves it"
PAST = "without addresses calls go past its waypoint: node proxies know it by these alone"
ENTRY = "ServiceEntry shop/a"
RANGE = (
    "address 192.0.2.0/24 is a range: node proxies leave calls to it alone, in plaintext and past "
    "policies and waypoints; single addresses are acted on"
)
AMBIENT = "it is there in every namespace, as in Istio's ambient mode"
STAR = "node proxies cannot resolve a '*'"
LABEL = "istio.io/dataplane-mode"
MODE = {LABEL: "Ambient"}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            Namespace(Meta("shop", "", MODE, {})),
            [f"Namespace shop: {LABEL}=Ambient is neither ambient nor none: it decides nothing"],
        ),
        (Namespace(Meta("shop", "", {"istio.io/dataplane-mode": "none"}, {})), []),
        (Node(Meta("n1", "", MODE, {})), []),
        (pod("Running"), ["Pod shop/a: has no address (status.podIPs): it is not in the mesh yet"]),
        (pod("Pending"), []),
        (entry(), []),
        (entry(export_to=("*",)), []),
        (entry(Resolution.STATIC), [f"{ENTRY}: {NOBODY}"]),
        (entry(Resolution.STATIC, selector={"a": "b"}), []),
        (entry(labels={"istio.io/use-waypoint": "wp"}), [f"{ENTRY}: {PAST}"]),
        (entry(labels={"istio.io/use-waypoint": "wp"}, addresses=(ip_network("192.0.2.1"),)), []),
        (entry(addresses=(ip_network("192.0.2.0/24"), ip_network("192.0.2.1"))), [f"{ENTRY}: {RANGE}"]),
        (entry(export_to=(".",)), [f"{ENTRY}: exportTo is not honoured: {AMBIENT}"]),
        (entry(Resolution.DYNAMIC_DNS), [f"{ENTRY}: resolution DYNAMIC_DNS needs a waypoint: {STAR}"]),
    ],
)
def test_what_does_not_mean_what_it_may_be_meant_to_is_told(one, expected):
    assert list(remark(one)) == expected


RULE = "DestinationRule shop/a"


def rule(traffic=UNSAID, **more):
    subsets = more.pop("subsets", ())
    return DestinationRule(Meta("a", "shop", {}, {}), "web", subsets, traffic, **more)


FOR_NOBODY = "a rule that has one is not for waypoints: it counts for nobody"
TUNNEL = "trafficPolicy.tunnel is not supported: connections that need it are refused"
ZONES = (
    "trafficPolicy.loadBalancer.zoneAwareLbSetting has no effect at a waypoint, as in Istio; the rest counts"
)
PASSES = "calls of a service's own address go to its endpoints, as LEAST_REQUEST"


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (rule(), []),
        (rule(PortTraffic(Traffic(unsupported=("tunnel",))), unread=("tunnel",)), [TUNNEL]),
        (rule(unread=("loadBalancer.zoneAwareLbSetting",)), [ZONES]),
        (rule(selector={"a": "b"}), [f"workloadSelector: {FOR_NOBODY}"]),
        (rule(PortTraffic(Traffic(Balancing(Balance.PASSTHROUGH)))), [f"PASSTHROUGH: {PASSES}"]),
    ],
)
def test_what_of_a_destination_rule_is_not_acted_on(one, expected):
    assert list(remark(one)) == [f"{RULE}: {text}" for text in expected]
