from itertools import count

import pytest

from ztunnel.demo.assign import Objects, node_number, pod_ips
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.schedule import complete, relabel, remove
from ztunnel.errors import ConfigError

UIDS = map("uid-{}".format, count())


def pod(name: str, more: str = "{}") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: t}}\nspec: {more}\n---\n"


def service(name: str, more: str = "{}") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: t}}\nspec: {more}\n---\n"


def after(text: str, before: Objects | None = None) -> Objects:
    return complete(before or {}, parse(text, "x.yaml"), lambda: next(UIDS))


def the(objects: Objects, kind: str, name: str, namespace: str = "t") -> dict[str, object]:
    return objects[Key("", kind, namespace, name)].body


def test_pods_are_spread_over_two_nodes_when_none_is_named() -> None:
    objects = after(pod("a") + pod("b") + pod("c"))
    assert [the(objects, "Pod", name)["spec"]["nodeName"] for name in "abc"] == ["node-1", "node-2", "node-1"]
    assert [list(map(str, pod_ips(objects[Key("", "Pod", "t", name)]))) for name in "abc"] == [
        ["10.244.1.2", "fd00:244:1::2"],
        ["10.244.2.2", "fd00:244:2::2"],
        ["10.244.1.3", "fd00:244:1::3"],
    ]


def test_nodes_that_are_only_mentioned_are_made() -> None:
    objects = after(pod("a", "{nodeName: east}") + pod("b", "{nodeName: west}"))
    numbers = {key.name: node_number(node) for key, node in objects.items() if key.kind == "Node"}
    assert numbers == {"east": 1, "west": 2}


def test_a_node_that_is_not_among_those_given_is_an_error() -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: east}\n---\n"
    with pytest.raises(ConfigError, match=r"x.yaml:5: .*nodeName: no node 'west' \(there are: east\)"):
        after(node + pod("a", "{nodeName: west}"))


def test_a_pod_becomes_ready_unless_the_text_says_otherwise() -> None:
    text = pod("a") + pod("b").replace("---", "status: {conditions: [{type: Ready, status: 'False'}]}\n---")
    conditions = [
        {entry["type"]: entry["status"] for entry in the(after(text), "Pod", name)["status"]["conditions"]}
        for name in "ab"
    ]
    assert [known["Ready"] for known in conditions] == ["True", "False"]


def test_applying_the_same_twice_changes_nothing() -> None:
    text = pod("a") + service("s") + "apiVersion: v1\nkind: Namespace\nmetadata: {name: t, labels: {x: y}}\n"
    once = after(text)
    assert {key: manifest.body for key, manifest in after(text, once).items()} == {
        key: manifest.body for key, manifest in once.items()
    }


def test_labels_change_in_place_and_a_command_makes_a_new_pod() -> None:
    once = after(pod("a"))
    key = Key("", "Pod", "t", "a")
    labelled = complete(once, [relabel(once[key], {"x": "y"})], lambda: next(UIDS))
    assert labelled[key].body["metadata"]["labels"] == {"x": "y"}
    assert labelled[key].body["metadata"]["uid"] == once[key].body["metadata"]["uid"]
    assert pod_ips(labelled[key]) == pod_ips(once[key])
    changed = after(pod("a", "{containers: [{command: [sleep, '1']}]}"), once)
    assert changed[key].body["metadata"]["uid"] != once[key].body["metadata"]["uid"]
    assert pod_ips(changed[key]) != pod_ips(once[key])


def test_a_label_is_taken_away() -> None:
    (manifest,) = parse("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: y, z: w}}\n", "")
    assert relabel(manifest, {"x": None}).body["metadata"]["labels"] == {"z": "w"}
    assert manifest.body["metadata"]["labels"] == {"x": "y", "z": "w"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", ["10.96.0.10", "fd00:96::a"]),
        ("{ipFamilyPolicy: SingleStack}", ["10.96.0.10"]),
        ("{ipFamilyPolicy: SingleStack, ipFamilies: [IPv6]}", ["fd00:96::a"]),
        ("{ipFamilies: [IPv6, IPv4]}", ["fd00:96::a", "10.96.0.10"]),
        ("{clusterIP: 10.96.7.7}", ["10.96.7.7", "fd00:96::a"]),
    ],
)
def test_a_service_gets_addresses_of_the_families_it_asks_for(spec: str, expected: list[str]) -> None:
    assert the(after(service("s", spec)), "Service", "s")["spec"]["clusterIPs"] == expected


@pytest.mark.parametrize("spec", ["{clusterIP: None}", "{type: ExternalName}"])
def test_a_service_without_an_address_gets_none(spec: str) -> None:
    assert "clusterIPs" not in the(after(service("s", spec)), "Service", "s")["spec"]


def test_two_services_on_one_address_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"10\.96\.7\.7 is taken by Service t/s"):
        after(service("s", "{clusterIP: 10.96.7.7}") + service("u", "{clusterIP: 10.96.7.7}"))


def test_what_kubectl_says_of_another_cluster_is_not_believed() -> None:
    text = pod("a").replace("---", "status: {podIP: 172.16.0.1, podIPs: [{ip: 172.16.0.1}]}\n---")
    assert the(after(text), "Pod", "a")["status"]["podIP"] == "10.244.1.2"
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDR: 10.244.9.0/24}\n"
    assert the(after(node), "Node", "n", "")["spec"]["podCIDR"] == "10.244.1.0/24"


def test_a_pod_of_the_host_network_has_its_nodes_addresses() -> None:
    body = the(after(pod("a", "{hostNetwork: true}")), "Pod", "a")
    assert body["status"]["podIPs"] == [{"ip": "10.10.0.11"}, {"ip": "fd00:10::11"}]


def test_with_a_namespace_goes_what_is_in_it_and_with_a_node_its_pods() -> None:
    objects = after(pod("a", "{nodeName: n1}") + pod("b", "{nodeName: n2}"))
    left = remove(objects, [Key("", "Node", "", "n2")], UIDS.__next__)
    assert {key.name for key in left if key.kind == "Pod"} == {"a"}
    assert {key.kind for key in remove(objects, [Key("", "Namespace", "", "t")], UIDS.__next__)} == {"Node"}


def test_what_the_laboratory_does_not_complete_keeps_its_text() -> None:
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}  # why\n"
    objects = after(text)
    assert objects[Key("security.istio.io", "PeerAuthentication", "default", "a")].text == text


WORKLOAD = """
apiVersion: apps/v1
kind: {0}
metadata: {{name: web, namespace: t}}
spec:
  {1}
  selector: {{matchLabels: {{app: web}}}}
  template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: {2}}}]}}}}
---
"""


def pods(objects: Objects) -> dict[str, str]:
    return {
        key.name: manifest.body["metadata"]["uid"] for key, manifest in objects.items() if key.kind == "Pod"
    }


def test_a_workload_is_followed_by_its_pods() -> None:
    two = after(WORKLOAD.format("Deployment", "replicas: 2", "x"))
    assert len(pods(two)) == 2
    assert {the(two, "Pod", name)["spec"]["nodeName"] for name in pods(two)} == {"node-1", "node-2"}
    three = after(WORKLOAD.format("Deployment", "replicas: 3", "x"), two)
    assert pods(two).items() <= pods(three).items()
    assert len(pods(three)) == 3
    assert pods(after(WORKLOAD.format("Deployment", "replicas: 3", "x"), three)) == pods(three)
    other = after(WORKLOAD.format("Deployment", "replicas: 1", "y"), three)
    assert not pods(other).keys() & pods(three).keys()
    key = Key("apps", "Deployment", "t", "web")
    assert pods(remove(other, [key], UIDS.__next__)) == {}


def test_a_changed_template_makes_new_pods_of_the_same_names_where_these_are_numbered() -> None:
    once = after(WORKLOAD.format("StatefulSet", "replicas: 2", "x"))
    assert list(pods(once)) == ["web-0", "web-1"]
    again = after(WORKLOAD.format("StatefulSet", "replicas: 2", "y"), once)
    assert list(pods(again)) == ["web-0", "web-1"]
    assert not set(pods(once).values()) & set(pods(again).values())


def test_a_pod_that_its_workload_wants_comes_back_anew() -> None:
    once = after(WORKLOAD.format("StatefulSet", "replicas: 2", "x"))
    again = remove(once, [Key("", "Pod", "t", "web-0")], UIDS.__next__)
    assert pods(again)["web-1"] == pods(once)["web-1"]
    assert pods(again)["web-0"] != pods(once)["web-0"]


def test_a_daemon_set_follows_the_nodes() -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {{name: {0}}}\n---\n"
    once = after(node.format("n1") + node.format("n2") + WORKLOAD.format("DaemonSet", "", "x"))
    assert len(pods(once)) == 2
    more = after(node.format("n3"), once)
    assert pods(once).items() <= pods(more).items()
    assert len(pods(more)) == 3
    less = remove(more, [Key("", "Node", "", "n1")], UIDS.__next__)
    assert pods(less).items() < pods(more).items()
    assert len(pods(less)) == 2


def test_with_a_node_go_its_pods_and_a_deployments_come_back_elsewhere() -> None:
    text = WORKLOAD.format("Deployment", "replicas: 2", "x")
    node = "apiVersion: v1\nkind: Node\nmetadata: {{name: {0}}}\n---\n"
    once = after(node.format("n1") + node.format("n2") + text)
    left = remove(once, [Key("", "Node", "", "n2")], UIDS.__next__)
    assert pods(left).keys() == pods(once).keys()
    assert {the(left, "Pod", name)["spec"]["nodeName"] for name in pods(left)} == {"n1"}


def test_a_node_that_only_a_template_mentions_is_made() -> None:
    text = WORKLOAD.format("Deployment", "", "x").replace("{containers", "{nodeName: far, containers")
    assert {key.name for key in after(text) if key.kind == "Node"} == {"far"}
