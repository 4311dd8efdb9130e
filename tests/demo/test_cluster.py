import pytest

from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import Cluster, cluster, difference, read_cluster
from ztunnel.demo.manifest import parse
from ztunnel.demo.schedule import complete
from ztunnel.errors import ConfigError

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: t, labels: {app: web, version: v1}}
spec:
  nodeName: n1
  containers:
  - name: web
    command: [serve, "$(GREETING)"]
    args: ["$$HOME", "$(UNKNOWN)"]
    ports: [{name: http, containerPort: 8081}, {name: admin, containerPort: 9000}]
    env:
    - {name: GREETING, value: "hello $(POD_NAME)"}
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: t, labels: {app: web}}
spec: {nodeName: n2}
status: {conditions: [{type: Ready, status: "False"}]}
---
"""


def objects(text: str, before: Objects | None = None, uids: str = "a") -> Objects:
    counter = iter(range(1000))
    return complete(before or {}, parse(text, "x.yaml"), lambda: f"{uids}{next(counter)}")


def service(spec: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: t}}\nspec: {spec}\n---\n"


def endpoints(found: Cluster) -> list[list[str]]:
    return [[str(end) for end in port.endpoints] for port in found.services[0].ports]


def test_a_pod_has_its_containers_ports_and_readiness() -> None:
    first, second = cluster(objects(WEB)).pods
    assert [one.ports for one in first.containers] == [(8081, 9000)]
    assert first.named_ports == {"http": 8081, "admin": 9000}
    assert ([one.command for one in second.containers], second.ready) == ([()], False)


def test_a_pod_knows_at_which_ports_services_expect_it() -> None:
    ports = (
        "[{port: 80, targetPort: 8000}, {port: 81, targetPort: http}, {port: 82}, {port: 53, protocol: UDP}]"
    )
    found = cluster(objects(WEB + service(f"{{selector: {{app: web}}, ports: {ports}}}")))
    assert [pod.targets for pod in found.pods] == [(8000, 82), (8000, 82)]


def test_a_service_may_ask_for_pods_that_are_not_ready() -> None:
    text = service("{selector: {app: web}, ports: [{port: 80}], publishNotReadyAddresses: true}")
    assert len(endpoints(cluster(objects(WEB + text)))[0]) == 4


def test_a_stored_object_with_a_fault_costs_only_itself() -> None:
    whole = objects(WEB + service("{selector: {app: web}, ports: [{port: 80}]}"))
    key = next(key for key in whole if key.name == "web-2")
    body = {**whole[key].body, "status": {}}
    found, faults = read_cluster({**whole, key: whole[key].with_body(body)})
    assert [pod.name for pod in found.pods] == ["web-1"]
    assert endpoints(found) == [["10.244.1.2:80", "[fd00:244:1::2]:80"]]
    assert [str(fault.message) for fault in faults.values()] == [
        "no address was given to it: `demo apply` it"
    ]
    without = {k: v for k, v in whole.items() if k.name != "n2"}
    assert [fault.message for fault in read_cluster(without)[1].values()] == ["no node 'n2'"]


@pytest.mark.parametrize(("target", "port"), [("http", 8081), ("8085", 8085), ("none", None)])
def test_a_service_chooses_ready_pods_and_resolves_ports_by_name(target: str, port: int | None) -> None:
    found = cluster(
        objects(WEB + service(f"{{selector: {{app: web}}, ports: [{{port: 80, targetPort: {target}}}]}}"))
    )
    expected = [f"10.244.1.2:{port}", f"[fd00:244:1::2]:{port}"] if port else []
    assert endpoints(found) == [expected]


def test_a_service_chooses_only_in_its_namespace_and_by_all_its_labels() -> None:
    other = WEB.replace("namespace: t", "namespace: u")
    selector = "{selector: {app: web, version: v1}, ports: [{port: 80}, {port: 53, protocol: UDP}]}"
    assert endpoints(cluster(objects(WEB + other + service(selector)))) == [
        ["10.244.1.2:80", "[fd00:244:1::2]:80"]
    ]


def test_a_service_without_a_selector_has_the_endpoints_of_its_slices() -> None:
    slices = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: t, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 90}]
endpoints:
- {addresses: [192.0.2.1]}
- {addresses: [192.0.2.2], conditions: {ready: false}}
"""
    found = cluster(objects(service("{ports: [{name: http, port: 80}, {name: other, port: 81}]}") + slices))
    assert endpoints(found) == [["192.0.2.1:90"], []]


def test_the_difference_is_by_uid_and_by_node() -> None:
    before = objects(WEB)
    after = objects(WEB.replace("serve", "other"), before, "b")
    change = difference(cluster(before), cluster(after))
    assert [pod.name for pod in change.pods_gone] == [pod.name for pod in change.pods_new] == ["web-1"]
    assert not change.nodes_gone + change.nodes_new
    whole = difference(Cluster((), (), (), ()), cluster(before))
    assert (len(whole.nodes_new), len(whole.pods_new)) == (2, 2)


def test_a_field_of_the_wrong_type_names_its_place() -> None:
    whole = objects(WEB)
    key = next(key for key in whole if key.name == "web-1")
    body = {**whole[key].body, "spec": {**whole[key].body["spec"], "containers": [{"command": "serve"}]}}
    with pytest.raises(
        ConfigError, match=r"^x.yaml:2: Pod t/web-1: spec.containers\[0\].command: expected list"
    ):
        cluster({**whole, key: whole[key].with_body(body)})
