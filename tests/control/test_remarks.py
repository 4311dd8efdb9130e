"""Labels that decide nothing, fields that are not honoured and pods without an address are told."""

from ipaddress import ip_network

import pytest

from ztunnel.control.remarks import remark
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
        (entry(export_to=(".",)), [f"{ENTRY}: exportTo is not honoured: {AMBIENT}"]),
        (entry(Resolution.DYNAMIC_DNS), [f"{ENTRY}: resolution DYNAMIC_DNS needs a waypoint: {STAR}"]),
    ],
)
def test_what_does_not_mean_what_it_may_be_meant_to_is_told(one, expected):
    assert list(remark(one)) == expected
