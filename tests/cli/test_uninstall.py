"""`ztunnel uninstall`: what goes, and what stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from tests.cli.test_install import NONE, OLD, Fake
from ztunnel.cli.main import main
from ztunnel.control.status.enrolment import OURS, REDIRECTION

CRDS = "customresourcedefinition.apiextensions.k8s.io/"


def test_there_has_to_be_one(fake_helm: Fake) -> None:
    fake_helm(NONE)
    found = CliRunner().invoke(main, ["uninstall"])
    assert (found.exit_code, "there is no mesh in namespace ztunnel-system" in found.output) == (1, True)


def test_it_goes_and_crds_stay(fake_helm: Fake, kubectl: Callable[[str], None]) -> None:
    kubectl('[ "$*" = "get pods --all-namespaces -o json" ] && echo "{}"')
    words = fake_helm(OLD)
    found = CliRunner().invoke(main, ["uninstall"])
    assert found.exit_code == 0
    assert words.read_text().splitlines()[-1].startswith("uninstall|ztunnel|")
    assert "Its authority is left: kubectl delete namespace ztunnel-system" in found.output


def test_crds_go_where_that_is_asked_for(fake_helm: Fake, kubectl: Callable[[str], None]) -> None:
    fake_helm(OLD)
    kubectl(
        f"""case "$1" in
        get) [ "$2" = pods ] && echo "{{}}" && exit
            echo {CRDS}sidecars.networking.istio.io; echo {CRDS}gateways.gateway.networking.k8s.io
            echo {CRDS}ratelimitpolicies.ztunnel.io; echo {CRDS}things.notztunnel.io;;
        delete) [ "$*" = "delete {CRDS}sidecars.networking.istio.io {CRDS}ratelimitpolicies.ztunnel.io" ];;
        esac"""
    )
    found = CliRunner().invoke(main, ["uninstall", "--purge-crds"])
    assert found.exit_code == 0
    assert "2 CRDs are removed." in found.output


def test_pods_do_not_go_on_saying_that_they_are_in_the_mesh(
    fake_helm: Fake, kubectl: Callable[[str], None], tmp_path: Path
) -> None:
    """Those of Istio's CNI agent do."""
    fake_helm(OLD)
    marks = {REDIRECTION: "enabled"}
    pods = [
        {"metadata": {"name": name, "namespace": namespace, "annotations": annotations}}
        for name, namespace, annotations in (
            ("a", "shop", {**marks, OURS: "enabled"}),
            ("b", "shop", {**marks, OURS: "enabled"}),
            ("c", "other", {OURS: "enabled"}),
            ("istio", "shop", marks),
        )
    ]
    pods.append({"metadata": {"name": "plain", "namespace": "shop"}})
    (tmp_path / "pods").write_text(json.dumps({"items": pods}))
    kubectl(f'if [ "$1" = get ]; then cat {tmp_path}/pods; else echo "$*" >>{tmp_path}/said; fi')
    found = CliRunner().invoke(main, ["uninstall"])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "said").read_text().splitlines() == [
        f"annotate pods -n shop a b {REDIRECTION}- {OURS}-",
        f"annotate pods -n other c {REDIRECTION}- {OURS}-",
    ]
