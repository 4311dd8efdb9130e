"""The chart as Helm renders it, and what every object of ours has to hold to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "ztunnel"
BASE = ROOT / "deploy" / "kustomize" / "base"
KIT = ROOT.parent / "shared" / "kube" / "kube"
Object = dict[str, Any]


def helm() -> list[str]:
    """The command; skips the test where there is none."""
    if given := os.environ.get("HELM"):
        return given.split()
    if found := shutil.which("helm"):
        return [found]
    if KIT.exists():
        return [str(KIT), "helm"]
    pytest.skip("HELM IS NOT HERE: neither on PATH, nor in $HELM, nor with ../shared/kube")


def kubectl() -> list[str]:
    """The command, for what needs no cluster; skips the test where there is none."""
    if given := os.environ.get("KUBECTL"):
        return given.split()
    if found := shutil.which("kubectl"):
        return [found]
    if KIT.exists():
        # Any helm command unpacks what the kit carries.
        subprocess.run([KIT, "helm", "version"], check=True, stdout=subprocess.DEVNULL)
        set_up = subprocess.run([KIT, "env"], check=True, capture_output=True, text=True).stdout
        folder = re.search(r" PATH=([^:]+):", set_up)
        assert folder, set_up
        return [str(Path(folder[1], "kubectl"))]
    pytest.skip("KUBECTL IS NOT HERE: neither on PATH, nor in $KUBECTL, nor with ../shared/kube")


def call_helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*helm(), *words], capture_output=True, text=True, cwd=ROOT)


def render(*words: str, settings: Iterator[str] | list[str] | tuple[str, ...] = ()) -> list[Object]:
    """The objects of the chart with these `--set`s. Fails the test where Helm refuses."""
    sets = [word for each in settings for word in ("--set", each)]
    return objects(_rendered(*sets, *words))


@cache
def _rendered(*words: str) -> str:
    done = call_helm("template", "ztunnel", str(CHART), "--namespace", "ztunnel-system", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[Object]:
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def of_kind(found: list[Object], kind: str, name: str = "") -> Object:
    [one] = [each for each in found if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    return one


def containers(found: list[Object]) -> Iterator[Object]:
    """Every container, init containers too."""
    for each in found:
        pod = each.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def container(found: list[Object], name: str) -> Object:
    [one] = [each for each in containers(found) if each["name"] == name]
    return one


def variables(one: Object) -> dict[str, str]:
    """Of a container, by name; those that come from elsewhere are empty."""
    return {each["name"]: each.get("value", "") for each in one["env"]}


def rules(found: list[Object]) -> Iterator[Object]:
    """Of every role."""
    for each in found:
        yield from each.get("rules") or [] if each["kind"] in ("Role", "ClusterRole") else []
