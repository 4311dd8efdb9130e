"""Manifests become resources as istiod makes them (golden pairs), and what did not change is carried over.

Each pair in golden/ is `<name>.in.yaml`, a manifest, and `<name>.out.yaml`: workloads, services and policies
in the JSON form of Istio's messages, and the warnings. `python tests/control/test_translation.py` writes the
latter anew.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator, translate
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.xds.address import render_service, render_workload
from ztunnel.xds.pb import http_policy_pb2, jwt_policy_pb2
from ztunnel.xds.policy import render_policy
from ztunnel.xds.resource import HTTP_POLICY, JWT_POLICY, render

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = MeshSettings()
OF_WAYPOINTS = {
    HTTP_POLICY: http_policy_pb2.AuthorizationPolicy,
    JWT_POLICY: jwt_policy_pb2.RequestAuthentication,
}


def translated(text, settings=SETTINGS):
    return translate(gather({"x.yaml": text}, Inventory()), settings)


def in_istios_form(translation):
    addresses = [one for _, one in sorted(translation.addresses.items())]
    out = {
        "workloads": [MessageToDict(render_workload(one)) for one in addresses if isinstance(one, Workload)],
        # What is spoken at ports istiod tells waypoints only, and otherwise.
        "services": [
            MessageToDict(render_service(replace(one, protocols=(), guards=(), jwt_policies=()), ""))
            for one in addresses
            if isinstance(one, Service)
        ],
        "policies": [MessageToDict(render_policy(one)) for _, one in sorted(translation.policies.items())],
        # Of our own; in their JSON form all the same.
        "http": [
            MessageToDict(OF_WAYPOINTS[url].FromString(render(one, "").resource.value))
            for url in OF_WAYPOINTS
            for _, one in sorted(translation.http.get(url, {}).items())
        ],
        "warnings": list(translation.warnings),
    }
    return json.loads(json.dumps({name: values for name, values in out.items() if values}))


@pytest.mark.parametrize("given", sorted(GOLDEN.glob("*.in.yaml")), ids=lambda path: path.name.split(".")[0])
def test_manifests_become_what_istiod_makes_of_them(given):
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert in_istios_form(translated(given.read_text())) == yaml.safe_load(expected.read_text())


NAMESPACE = (
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n"
)
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n"
SERVICE = """apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}
"""


def pod(name, ip, labels="{app: web}", node="n1"):
    return f"""apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {labels}}}
spec: {{nodeName: {node}}}
status: {{podIP: {ip}}}
"""


def documents(*texts):
    return "---\n".join(texts)


BASE = documents(NAMESPACE, NODE, SERVICE, pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
A, B = "Kubernetes//Pod/shop/a", "Kubernetes//Pod/shop/b"


def twice(first, second):
    """Two translations, the second after the first, as a watch makes them."""
    inventory, translator = gather({"x.yaml": first}, Inventory()), Translator(SETTINGS)
    translator.update(inventory.objects)
    before = translator.translation()
    after = gather({"x.yaml": second}, inventory).objects
    translator.update({**dict.fromkeys(inventory.objects.keys() - after.keys()), **after})
    return before, translator.translation()


def test_workloads_of_pods_that_did_not_change_are_carried_over():
    before, after = twice(BASE, BASE.replace("10.0.0.2", "10.0.0.3"))
    assert after.addresses[A] is before.addresses[A]
    assert after.addresses[B] != before.addresses[B]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zone: z1", "zone: z2"),
        ("ambient", "none"),
        ("[{port: 80}]", "[{port: 81}]"),
        ("selector: {app: web}", "selector: {app: other}"),
    ],
)
def test_what_surrounds_a_pod_changes_its_workload(old, new):
    before, after = twice(BASE, BASE.replace(old, new))
    assert after.addresses[A] != before.addresses[A]
    assert after.addresses == translated(BASE.replace(old, new)).addresses


def test_policies_with_a_selector_change_the_workloads_that_they_select():
    policy = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, rules: [{}]}
"""
    before, after = twice(BASE, documents(BASE, policy))
    assert before.addresses[A].authorization_policies == ()
    assert after.addresses[A].authorization_policies == ("shop/p",)
    before, after = twice(documents(BASE, policy), BASE)
    assert after.addresses == translated(BASE).addresses


def test_other_settings_reach_every_workload():
    settings = MeshSettings(
        trust_domain="example.org", cluster="east", cluster_domain="c.example", network="n"
    )
    translation = translated(BASE, settings)
    workload = translation.addresses["east//Pod/shop/a"]
    assert (workload.trust_domain, workload.cluster, workload.network) == ("example.org", "east", "n")
    assert [str(name) for name in workload.services] == ["shop/web.shop.svc.c.example"]


def test_strange_labels_and_missing_addresses_are_warned_about():
    text = documents(
        NAMESPACE.replace("ambient", "Ambient"),
        pod("a", "10.0.0.1", "{istio.io/use-waypoint: wp}"),
        pod("b", "~"),
        "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: x}\n",
        "apiVersion: example.com/v1\nkind: Pod\nmetadata: {name: x}\n",
    )
    assert translated(text).warnings == (
        "not read: PodTemplate, example.com/Pod",
        "Namespace shop: istio.io/dataplane-mode=Ambient is neither ambient nor none: it decides nothing",
        "Pod shop/b: has no address (status.podIPs): it is not in the mesh yet",
        'Pod shop/a: waypoint "shop/wp" is not ready: HTTP rules are not applied',
    )


ENTRY = """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: shop}
spec: {hosts: [httpbin.org], addresses: [%s], resolution: DNS, ports: [{number: 80, name: http}]}
"""


def test_of_two_entries_with_one_host_the_other_takes_over_when_the_first_goes():
    """istio/istio#51863: the one that had been there before was lost until istiod was restarted."""
    first, second = ENTRY % ("http", "240.240.0.10"), ENTRY % ("http2", "240.240.0.11")
    before, after = twice(documents(first, second), second)
    (one,) = (one for one in before.addresses.values() if isinstance(one, Service))
    assert [str(ip) for ip in one.addresses] == ["240.240.0.10"]
    assert before.warnings == (
        "ServiceEntry shop/http2: host httpbin.org is of the older ServiceEntry shop/http",
    )
    assert after.addresses == translated(second).addresses
    (one,) = (one for one in after.addresses.values() if isinstance(one, Service))
    assert [str(ip) for ip in one.addresses] == ["240.240.0.11"]


def test_a_workload_with_nothing_but_a_network_is_sent_nothing():
    """istio/istio#56531: it was an endpoint without an address, and calls to it were lost."""
    text = """apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: remote, namespace: shop, labels: {app: web}}
spec: {network: elsewhere}
"""
    translation = translated(documents(BASE, text))
    assert {one.name for one in translation.addresses.values() if isinstance(one, Workload)} == {"a", "b"}


def test_an_address_that_two_claim_is_warned_about():
    text = documents(NAMESPACE, pod("a", "10.0.0.1"), pod("b", "10.0.0.1"))
    assert translated(text).warnings == (f"10.0.0.1 is claimed by {A} and by {B}",)


if __name__ == "__main__":
    for path in GOLDEN.glob("*.in.yaml"):
        out = yaml.safe_dump(in_istios_form(translated(path.read_text())), sort_keys=False, width=110)
        path.with_name(path.name.replace(".in.", ".out.")).write_text(out)
