"""Bookinfo's manifests: valid for Kubernetes, and understood by the laboratory, where all of it runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from ztunnel.demo.cluster import cluster
from ztunnel.demo.command import programs
from ztunnel.demo.load import load
from ztunnel.demo.schedule import complete

FOLDER = Path(__file__).parents[2] / "deploy/bookinfo"
FILES = sorted(FOLDER.glob("*.yaml"))
VERSION = "1.29"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_kubernetes_knows_is_valid_for_it(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if "." not in document["apiVersion"].partition("/")[0]:
            kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_laboratory_runs_every_program_of_it() -> None:
    loaded = load([FOLDER])
    assert not loaded.left_out
    plan = cluster(complete({}, loaded.manifests, lambda: "11111111-1111-1111-1111-111111111111"))
    assert sorted(service.name for service in plan.services) == sorted(
        ["details", "details-v1", "productpage", "productpage-v1", "ratings", "ratings-v1", "reviews",
         "reviews-v1", "reviews-v2", "reviews-v3", "waypoint"]
    )  # fmt: skip
    commands = {pod.labels.get("app", ""): programs(pod)[0].words for pod in plan.pods}
    for name in ("details", "ratings", "reviews", "productpage"):
        assert commands[name][1:] == ["-m", f"ztunnel.demo.bookinfo.{name}", "9080"]
        assert find_spec(commands[name][2])
    versions = {pod.labels["version"] for pod in plan.pods if pod.labels.get("app") == "reviews"}
    assert versions == {"v1", "v2", "v3"}


def test_each_version_is_told_which_it_is() -> None:
    for document in yaml.safe_load_all((FOLDER / "bookinfo.yaml").read_text()):
        if document["kind"] != "Deployment" or not document["metadata"]["name"].startswith("reviews"):
            continue
        pod = document["spec"]["template"]
        told = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
        assert told == {"SERVICE_VERSION": pod["metadata"]["labels"]["version"]}
