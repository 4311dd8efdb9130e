"""Labels that waypoints are sent: of pods, of WorkloadEntries, of endpoints within a ServiceEntry."""

from ztunnel.control.services.labels import labels_for
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator
from ztunnel.model.labels import WorkloadLabels
from ztunnel.xds.resource import LABELS

OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: web, version: v1}}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 192.0.2.1, labels: {class: vm}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop, labels: {its: own}}
spec:
  hosts: [db.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7, labels: {version: v2}}, {address: 192.0.2.8}]
"""
ENTRY = "Kubernetes/networking.istio.io"
POD = "Kubernetes//Pod/shop/a"


def labels(uid, **texts):
    return WorkloadLabels(uid, frozenset(texts.items()))


def test_workloads_have_their_own_labels():
    translator = Translator(MeshSettings())
    delta = translator.update(gather({"x.yaml": OBJECTS}, Inventory()).objects)
    vm, outside = f"{ENTRY}/WorkloadEntry/shop/vm", f"{ENTRY}/ServiceEntry/shop/outside/192.0.2.7"
    expected = {
        POD: labels(POD, app="web", version="v1"),
        vm: labels(vm, **{"class": "vm"}),
        outside: labels(outside, version="v2"),
    }
    assert delta.by_type()[LABELS] == translator.http.in_force[LABELS] == expected


def test_labels_go_with_their_workload_and_a_change_of_them_is_one():
    translator = Translator(MeshSettings())
    objects = gather({"x.yaml": OBJECTS}, Inventory()).objects
    translator.update(objects)
    relabelled = gather({"x.yaml": OBJECTS.replace("version: v1", "version: v3")}, Inventory()).objects
    assert translator.update(relabelled).http == {LABELS: {POD: labels(POD, app="web", version="v3")}}
    gone = translator.update({Key("Pod", "shop", "a"): None})
    assert gone.http == {LABELS: {POD: None}}


def test_what_has_no_labels_has_none():
    assert labels_for("uid", {}) is None
