import pytest

from ztunnel.demo.cluster import cluster
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.lookup import key_named, node_named, pod_named, service_named
from ztunnel.demo.manifest import parse
from ztunnel.demo.schedule import complete

TEXT = (
    "".join(
        f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{}}\n---\n"
        for kind, namespace, name in [
            ("Pod", "shop", "orders-1"),
            ("Pod", "shop", "load"),
            ("Pod", "else", "load"),
            ("Service", "shop", "orders"),
        ]
    )
    + "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
)
OBJECTS = complete({}, parse(TEXT, ""), iter(map(str, range(99))).__next__)
CLUSTER = cluster(OBJECTS)


def test_a_pod_is_found_by_its_full_or_its_only_name() -> None:
    assert pod_named(CLUSTER, "orders-1") is pod_named(CLUSTER, "shop/orders-1")
    assert pod_named(CLUSTER, "else/load").namespace == "else"


def test_nodes_and_services_are_found() -> None:
    assert node_named(CLUSTER, "node-1").number == 1
    assert service_named(CLUSTER, "shop/orders").name == "orders"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pod_named(CLUSTER, "load"), "which load? there are else/load and shop/load"),
        (lambda: pod_named(CLUSTER, "order-1"), "no pod 'order-1' in the laboratory; did you mean orders-1?"),
        (
            lambda: pod_named(CLUSTER, "sho/orders-1"),
            "did you mean shop/orders-1 or shop/load?",
        ),
        (lambda: node_named(CLUSTER, "node"), "did you mean node-"),
        (lambda: service_named(CLUSTER, "zzz"), "there are: shop/orders"),
        (lambda: key_named(OBJECTS, "pud", "x"), "no kind 'pud' in the laboratory; did you mean pod?"),
        (lambda: key_named(OBJECTS, "pod", "load"), "which load? there are"),
        (lambda: key_named(OBJECTS, "ns", "shp"), "no Namespace 'shp' in the laboratory; did you mean shop?"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(call: object, message: str) -> None:
    with pytest.raises(LaboratoryFailed) as caught:
        call()  # type: ignore[operator]
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["authorizationpolicy", "AuthorizationPolicies", "AUTHORIZATIONPOLICY"])
def test_kinds_are_found_as_kubectl_does(kind: str) -> None:
    assert key_named(OBJECTS, kind, "shop/p").name == "p"
    assert key_named(OBJECTS, "svc", "orders").kind == "Service"
    assert key_named(OBJECTS, "pods", "orders-1").kind == "Pod"


WORKLOADS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: else}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
"""


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("deploy/web", "deployment/web"),
        ("deployment/web", "deployment/web"),
        ("shop/web", "deployment/web"),
        ("shop/deploy/web", "deployment/web"),
        ("ds/web", "daemonset/web"),
        ("db", "statefulset/db"),
        ("db-1", "statefulset/db"),
    ],
)
def test_a_workload_stands_for_its_first_pod(name: str, owner: str) -> None:
    found = cluster(complete({}, parse(WORKLOADS, ""), iter(map(str, range(99))).__next__))
    assert pod_named(found, name).owner == owner
    assert pod_named(found, "db").name == "db-0"
    with pytest.raises(LaboratoryFailed, match="which web"):
        pod_named(found, "web")
