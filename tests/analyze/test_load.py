"""A mesh out of files: as a cluster has completed them, or as a repository has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.analyze.kubectl import Fake
from ztunnel.analyze.findings import analyze
from ztunnel.analyze.forward import NoCluster
from ztunnel.analyze.load import load_cluster, load_mesh
from ztunnel.control.settings import MeshSettings
from ztunnel.errors import ConfigError

REPOSITORY = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: EnvoyFilter
metadata: {name: odd, namespace: shop}
"""
CLUSTER = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec: {nodeName: n7, containers: [{name: c}]}
status: {phase: Running, podIP: 10.4.0.9, podIPs: [{ip: 10.4.0.9}]}
"""
BROKEN = "apiVersion: v1\nkind: Service\nmetadata: {name: [1]}\n"


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_repository_gets_the_pods_and_addresses_that_a_cluster_would_give(tmp_path: Path) -> None:
    mesh = load_mesh([written(tmp_path, a=REPOSITORY)], MeshSettings())
    (pod,) = mesh.world.workloads.values()
    assert (pod.namespace, pod.enrolled, bool(pod.addresses), pod.node) == ("shop", True, True, "node-1")
    (served,) = mesh.world.served.values()
    assert served.service is not None
    assert served.service.addresses
    assert mesh.faults == ()
    assert [str(one) for one in mesh.written if one.kind == "EnvoyFilter"] == ["EnvoyFilter shop/odd"]


def test_what_a_cluster_has_completed_stays_as_it_is(tmp_path: Path) -> None:
    mesh = load_mesh([written(tmp_path, a=CLUSTER)], MeshSettings())
    (pod,) = mesh.world.workloads.values()
    assert (str(pod.addresses[0]), pod.node) == ("10.4.0.9", "n7")


def test_what_is_wrong_costs_only_its_own_file(tmp_path: Path) -> None:
    mesh = load_mesh([written(tmp_path, a=REPOSITORY, b=BROKEN)], MeshSettings())
    assert len(mesh.world.workloads) == 1
    assert {fault.file.rpartition("/")[2] for fault in mesh.faults} == {"b.yaml"}


def test_where_nothing_can_be_read_that_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b\.yaml:3"):
        load_mesh([written(tmp_path, b=BROKEN)], MeshSettings())


def test_nodes_that_are_not_there_are_faults_and_the_rest_is_read(tmp_path: Path) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n"
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: n2, containers: [{name: c}]}\n"
    mesh = load_mesh([written(tmp_path, a=node + pod)], MeshSettings())
    assert "no node 'n2'" in str(mesh.faults[0])


def test_a_cluster_is_read_kind_by_kind_and_lacks_some(kubectl: Fake) -> None:
    pods = json.dumps({"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(CLUSTER)]})
    kubectl(
        f"""case "$*" in
            "get pods -A -o json") cat <<'END'
{pods}
END
            ;;
            *istio.io*) echo "error: the server doesn't have a resource type \\"x\\"" >&2; exit 1;;
            *) echo '{{"apiVersion": "v1", "kind": "List", "items": []}}';;
        esac"""
    )
    mesh = load_cluster(MeshSettings())
    (pod,) = mesh.world.workloads.values()
    assert str(pod.addresses[0]) == "10.4.0.9"
    assert [(one.kind, one.file, one.line) for one in mesh.written] == [("Pod", "", 0)]


def test_an_object_of_a_cluster_that_makes_no_sense_costs_only_itself(kubectl: Fake) -> None:
    """With it every other policy of the cluster was left out: what one denies was said to be allowed."""
    head = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    good = {
        **head,
        "metadata": {"name": "good", "namespace": "shop"},
        "spec": {"action": "DENY", "rules": [{}]},
    }
    rule = {"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]}
    bad = {**head, "metadata": {"name": "bad", "namespace": "shop"}, "spec": {"rules": [rule]}}
    policies = json.dumps({"apiVersion": "v1", "kind": "List", "items": [bad, good]})
    kubectl(
        f"""case "$*" in
            *authorizationpolicies*) cat <<'END'
{policies}
END
            ;;
            *) echo '{{"apiVersion": "v1", "kind": "List", "items": []}}';;
        esac"""
    )
    mesh = load_cluster(MeshSettings())
    assert set(mesh.world.policies) == {"shop/good"}
    [finding] = [one for one in analyze(mesh, "shop") if "bad" in one.what]
    assert finding.what == "AuthorizationPolicy shop/bad"
    assert finding.message.startswith("spec.rules[0].from[0].source.ipBlocks[0]: ")


MESH = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "istio", "namespace": "istio-system"},
    "data": {"mesh": "extensionProviders: [{name: a, prometheus: {}}]"},
}


@pytest.mark.parametrize("allowed", [True, False])
def test_the_mesh_config_of_a_cluster_is_read_where_that_is_allowed(kubectl: Fake, allowed: bool) -> None:
    answer = f"cat <<'END'\n{json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [MESH]})}\nEND\n"
    kubectl(
        f"""case "$*" in
            *namespaces*) echo '{{"apiVersion": "v1", "kind": "Namespace", "metadata": {{"name": "shop"}}}}';;
            "get configmaps -n istio-system --field-selector=metadata.name=istio -o json")
                {answer if allowed else "echo 'Forbidden: configmaps' >&2; exit 1"} ;;
            *) echo '{{"apiVersion": "v1", "kind": "List", "items": []}}';;
        esac"""
    )
    mesh = load_cluster(MeshSettings(mesh_config="istio-system/istio"))
    assert list(mesh.world.providers) == (["a"] if allowed else [])
    faults = [(one.field, one.message) for one in mesh.faults]
    why = "cannot be read, so nobody's providers are known here: "
    assert [(field, message.startswith(why)) for field, message in faults] == (
        [] if allowed else [("ConfigMap istio-system/istio", True)]
    )


def test_a_cluster_that_does_not_answer_is_an_error(kubectl: Fake) -> None:
    kubectl("echo 'Forbidden: cannot list namespaces' >&2; exit 1")
    with pytest.raises(NoCluster, match="cannot list namespaces"):
        load_cluster(MeshSettings())
