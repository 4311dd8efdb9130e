"""The plain manifests are what the chart renders, and each overlay builds on them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import BASE, ROOT, container, helm, kubectl, objects, of_kind

pytestmark = pytest.mark.timeout(60)

OVERLAYS = ("kind", "k3s")


def build(folder: Path):
    done = subprocess.run([*kubectl(), "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def test_the_base_is_what_the_chart_renders(tmp_path: Path):
    made = tmp_path / "made.yaml"
    env = {**os.environ, "HELM": " ".join(helm())}
    subprocess.run([ROOT / "deploy/kustomize/generate", made], check=True, env=env)
    assert made.read_text() == (BASE / "ztunnel.yaml").read_text(), "run deploy/kustomize/generate"


def test_the_base_is_valid_without_helm():
    found = [*objects((BASE / "ztunnel.yaml").read_text()), *objects((BASE / "namespace.yaml").read_text())]
    for each in found:
        kubernetes_validate.validate(each, "1.33", strict=True)
    assert {"DaemonSet", "Deployment", "Service", "Namespace"} <= {each["kind"] for each in found}
    assert not [each for each in found if "helm" in yaml.safe_dump(each).lower()]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_the_base_with_one_control_plane(overlay: str):
    found = build(ROOT / "deploy/kustomize/overlays" / overlay)
    for each in found:
        kubernetes_validate.validate(each, "1.33", strict=True)
    assert of_kind(found, "Deployment")["spec"]["replicas"] == 1
    assert len(found) == len(build(BASE))


def test_on_kind_a_bpffs_is_mounted_first():
    found = build(ROOT / "deploy/kustomize/overlays/kind")
    pod = of_kind(found, "DaemonSet", "ztunnel")["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["mount-bpffs", "loader"]
    assert container(found, "mount-bpffs")["image"] == container(found, "proxy")["image"]
