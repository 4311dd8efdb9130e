import re
from collections.abc import Iterator

import pytest

from ztunnel.demo.manifest import Key, Manifest, parse
from ztunnel.demo.workloads import is_workload, owner_of, pods_of, same_template

NODES = {"n1": {"disk": "ssd"}, "n2": {}}
TEXT = """
apiVersion: {0}
kind: {1}
metadata: {{name: web, namespace: t}}
spec:
  {2}
  selector: {3}
  template:
    metadata: {{labels: {{app: web, version: v1}}, annotations: {{a: b}}}}
    spec: {{serviceAccountName: bob, containers: [{{name: web}}]}}
"""
MATCH = "{matchLabels: {app: web}}"


def workload(kind: str, more: str = "", api: str = "apps/v1", selector: str = MATCH) -> Manifest:
    (found,) = parse(TEXT.format(api, kind, more, selector), "x.yaml")
    return found


def names(found: list[Manifest]) -> list[str]:
    return [pod.key.name for pod in found]


def owner(pod: Manifest) -> tuple[str, str]:
    (found,) = pod.body["metadata"]["ownerReferences"]
    assert found["controller"] is True
    return found["kind"], found["name"]


def test_a_deployments_pods_are_those_of_its_replica_set() -> None:
    found = pods_of(workload("Deployment", "replicas: 3"), NODES)
    digest = found[0].body["metadata"]["labels"]["pod-template-hash"]
    assert all(re.fullmatch(rf"web-{digest}-[bcdfghj-z2-9]{{5}}", name) for name in names(found))
    assert len(set(names(found))) == 3
    assert {owner(pod) for pod in found} == {("ReplicaSet", f"web-{digest}")}
    metadata = found[0].body["metadata"]
    assert metadata["labels"] == {"app": "web", "version": "v1", "pod-template-hash": digest}
    assert metadata["annotations"]["a"] == "b"
    assert found[0].pull("spec.serviceAccountName", str, "") == "bob"
    assert owner_of(found[0]) == Key("apps", "Deployment", "t", "web")
    assert (found[0].file, found[0].line) == ("x.yaml", 2)


def test_the_same_text_gives_the_same_pods_and_more_replicas_only_more() -> None:
    one, three = (pods_of(workload("Deployment", f"replicas: {n}"), NODES) for n in (1, 3))
    assert names(one) == names(three)[:1]
    assert same_template(one[0], three[2])
    (changed,) = parse(TEXT.format("apps/v1", "Deployment", "", MATCH).replace("bob", "eve"), "")
    assert not set(names(pods_of(changed, NODES))) & set(names(three))
    assert not same_template(pods_of(changed, NODES)[0], one[0])


def test_the_pods_of_a_stateful_set_are_numbered_and_have_names_of_their_own() -> None:
    found = pods_of(workload("StatefulSet", "replicas: 2\n  serviceName: all"), NODES)
    assert names(found) == ["web-0", "web-1"]
    assert [pod.pull("spec.hostname", str, "") for pod in found] == names(found)
    assert {pod.pull("spec.subdomain", str, "") for pod in found} == {"all"}
    assert found[1].body["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "web-1"
    assert owner(found[1]) == ("StatefulSet", "web")
    later = pods_of(workload("StatefulSet", "replicas: 1\n  ordinals: {start: 5}"), NODES)
    assert names(later) == ["web-5"]


def test_a_daemon_set_has_a_pod_on_each_node_that_it_selects() -> None:
    found = pods_of(workload("DaemonSet"), NODES)
    assert [pod.pull("spec.nodeName", str, "") for pod in found] == ["n1", "n2"]
    text = TEXT.format("apps/v1", "DaemonSet", "", MATCH).replace("bob", "bob, nodeSelector: {disk: ssd}")
    (chosen,) = pods_of(parse(text, "")[0], NODES)
    assert chosen.pull("spec.nodeName", str, "") == "n1"
    assert owner(chosen) == ("DaemonSet", "web")


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ("", 1),
        ("completions: 3", 1),
        ("parallelism: 2", 2),
        ("completions: 3\n  parallelism: 5", 3),
        ("suspend: true", 0),
    ],
)
def test_a_job_has_as_many_pods_as_may_run_at_once(more: str, count: int) -> None:
    found = pods_of(workload("Job", more, "batch/v1"), NODES)
    assert len(set(names(found))) == count
    assert all(pod.body["metadata"]["labels"]["job-name"] == "web" for pod in found)


@pytest.mark.parametrize(
    ("kind", "api", "selector"),
    [("ReplicaSet", "apps/v1", MATCH), ("ReplicationController", "v1", "{app: web}")],
)
def test_a_bare_replica_set_owns_its_pods(kind: str, api: str, selector: str) -> None:
    found = pods_of(workload(kind, "replicas: 2", api, selector), NODES)
    assert len(set(names(found))) == 2
    assert {owner(pod) for pod in found} == {(kind, "web")}
    assert {owner_of(pod) for pod in found} == {workload(kind, "", api, selector).key}


def test_none_are_asked_for() -> None:
    assert pods_of(workload("Deployment", "replicas: 0"), NODES) == []


def test_a_long_name_leaves_room_for_the_suffix() -> None:
    text = TEXT.format("apps/v1", "Deployment", "", MATCH).replace("name: web,", f"name: {'w' * 63},")
    (pod,) = pods_of(parse(text, "")[0], NODES)
    assert len(pod.key.name) <= 64


def test_many_replicas_have_names_of_their_own() -> None:
    assert len(set(names(pods_of(workload("Deployment", "replicas: 1000"), NODES)))) == 1000


def others() -> Iterator[Key]:
    yield Key("", "Pod", "t", "a")
    yield Key("batch", "CronJob", "t", "a")
    yield Key("other.io", "Deployment", "t", "a")


def test_what_is_no_workload() -> None:
    assert not any(map(is_workload, others()))
    (pod,) = parse("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "")
    assert owner_of(pod) is None
