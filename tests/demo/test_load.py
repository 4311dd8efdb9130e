import os
from pathlib import Path

import pytest

from ztunnel.demo.load import load, sort_out
from ztunnel.demo.manifest import parse
from ztunnel.errors import ConfigError

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: t}\n"
POLICY = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: t}\n"
OTHERS = (
    "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: c, namespace: t}\n---\n"
    "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j, namespace: t}\n"
)


def messages(*sources: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(sources)
    return [fault.message for fault in caught.value.faults]


def test_files_and_directories_are_read_and_their_faults_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POD)
    (tmp_path / "b.yml").write_text(POLICY)
    (tmp_path / "c.json").write_text('{"apiVersion":"v1",\n\t"kind":"Node","metadata":{"name":"n"}}\n')
    (tmp_path / "README").write_text("{")
    kinds = [manifest.key.kind for manifest in load([tmp_path]).manifests]
    assert kinds == ["Pod", "PeerAuthentication", "Node"]
    assert len(load([tmp_path / "a.yaml"]).manifests) == 1
    (tmp_path / "d.yaml").write_bytes(b"\xff")
    (tmp_path / "e.yaml").write_text("a: b: c\n")
    (tmp_path / "f.yaml").mkdir()
    (tmp_path / "g.yaml").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    assert messages(tmp_path, tmp_path / "none", tmp_path / "empty") == [
        "not UTF-8",
        "not YAML: mapping values are not allowed in this context",
        "a directory",
        "No such file or directory",
        "No such file or directory",
        "no *.yaml in this directory",
    ]


def test_what_is_not_read_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{POD}---\n{OTHERS}")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    found = load([tmp_path])
    assert [manifest.key.kind for manifest in found.manifests] == ["Pod"]
    assert [str(fault).removeprefix(f"{tmp_path}/") for fault in found.left_out] == [
        "compose.yaml:1: not read: no Kubernetes object: it has neither apiVersion nor kind",
        "a.yaml:5: PodTemplate t/c: not read",
        "a.yaml:9: CronJob t/j: not run: a laboratory has no schedule",
    ]
    assert messages(tmp_path / "compose.yaml") == ["no Kubernetes object: it has neither apiVersion nor kind"]


def test_the_last_of_two_objects_of_one_key_counts() -> None:
    found = sort_out((*parse(POD, "a"), *parse(POD + "spec: {nodeName: n}\n", "b")))
    assert [manifest.file for manifest in found.manifests] == ["b"]


DUMP = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-5d4-x
    namespace: t
    ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4, controller: true, uid: "1"}]
  spec: {nodeName: far-away}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-5d4-x
    namespace: other
    ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4, controller: true, uid: "1"}]
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata:
    name: web-5d4
    namespace: t
    ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, controller: true, uid: "2"}]
  spec: &spec
    selector: {matchLabels: {app: web}}
    template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: t}
  spec: *spec
"""


def test_what_kubectl_shows_of_a_workload_is_not_made_twice() -> None:
    found = sort_out(parse(DUMP, "all.yaml"))
    assert [str(manifest.key) for manifest in found.manifests] == ["Pod other/web-5d4-x", "Deployment t/web"]
    assert [str(fault) for fault in found.left_out] == [
        "all.yaml:5: Pod t/web-5d4-x: not read: made of ReplicaSet web-5d4",
        "all.yaml:18: ReplicaSet t/web-5d4: not read: made of Deployment web",
    ]


def test_a_directory_without_manifests_says_where_some_are(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "a.yaml").write_text(POD)
    assert messages(tmp_path) == [f"no *.yaml in this directory; there are some in {tmp_path}/deploy"]


def test_a_kustomization_that_lists_is_followed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    (base / "a.yaml").write_text(POD)
    (base / "patch.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: not-listed}\n")
    (tmp_path / "kustomization.yml").write_text("resources: [base, p.yaml]\n")
    (tmp_path / "p.yaml").write_text(POLICY)
    assert [manifest.key.name for manifest in load([tmp_path]).manifests] == ["a", "p"]
    (base / "kustomization.yaml").write_text("resources: [.]\n")
    assert messages(tmp_path) == [".: no kustomization in this directory"]
    (base / "kustomization.yaml").write_text("resources: [a.yaml]\npatches: [{path: patch.yaml}]\n")
    assert "kubectl kustomize" in messages(tmp_path)[0]


def test_a_chart_has_to_be_rendered(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("name: x\n")
    assert "helm template" in messages(tmp_path)[0]


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, POD.encode())
    os.close(writing)
    try:
        assert len(load([Path(f"/dev/fd/{reading}")]).manifests) == 1
    finally:
        os.close(reading)
