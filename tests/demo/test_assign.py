from itertools import count

import pytest

from ztunnel.demo.assign import Objects, cluster_ips, node_number, of_kind, pod_ips
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.schedule import complete

UIDS = map("uid-{}".format, count())


def after(text: str, before: Objects | None = None) -> Objects:
    return complete(before or {}, parse(text, "x.yaml"), lambda: next(UIDS))


def pod(name: str, more: str = "{}") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: t}}\nspec: {more}\n---\n"


def service(name: str, more: str = "{}") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: t}}\nspec: {more}\n---\n"


def test_a_changed_pod_never_gets_the_address_of_one_that_is_given_with_it() -> None:
    text = pod("a", "{nodeName: n1}") + pod("b", "{nodeName: n1}")
    objects = after(text)
    for number in range(5):
        changed = pod("a", f"{{nodeName: n1, containers: [{{env: [{{name: N, value: '{number}'}}]}}]}}")
        objects = after(changed + pod("b", "{nodeName: n1}"), objects)
        a, b = (pod_ips(objects[Key("", "Pod", "t", name)]) for name in "ab")
        assert not set(a) & set(b)


def test_a_new_service_never_gets_the_address_of_one_that_is_given_with_it() -> None:
    objects = after(service("b"))
    objects = after(service("a") + service("b") + service("c", "{clusterIP: 10.96.0.12}"), objects)
    addresses = [ip for each in of_kind(objects, "Service") for ip in cluster_ips(each)]
    assert len(set(addresses)) == len(addresses) == 6


def test_a_node_has_the_labels_that_pods_select_nodes_by() -> None:
    objects = after(pod("a"))
    labels = [node.pull("metadata.labels", dict, {}) for node in of_kind(objects, "Node")]
    assert {each["kubernetes.io/os"] for each in labels} == {"linux"}
    assert [node_number(node) for node in of_kind(objects, "Node")] == [1, 2]


@pytest.mark.parametrize(
    ("selector", "nodes"), [("{disk: ssd}", {"n2"}), ("{disk: none-has-it}", {"n1", "n2"})]
)
def test_a_pod_goes_to_a_node_that_it_selects_or_to_any(selector: str, nodes: set[str]) -> None:
    text = "".join(
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n---\n"
        for name, labels in (("n1", "{}"), ("n2", "{disk: ssd}"))
    )
    objects = after(text + "".join(pod(name, f"{{nodeSelector: {selector}}}") for name in "abcd"))
    assert {each.pull("spec.nodeName", str, "") for each in of_kind(objects, "Pod")} == nodes
