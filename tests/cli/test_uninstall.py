"""`ztunnel uninstall`: what goes, and what stays."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import CliRunner

from tests.cli.test_install import NONE, OLD, Fake
from ztunnel.cli.main import main

CRDS = "customresourcedefinition.apiextensions.k8s.io/"


def test_there_has_to_be_one(fake_helm: Fake) -> None:
    fake_helm(NONE)
    found = CliRunner().invoke(main, ["uninstall"])
    assert (found.exit_code, "there is no mesh in namespace ztunnel-system" in found.output) == (1, True)


def test_it_goes_and_crds_stay(fake_helm: Fake, kubectl: Callable[[str], None]) -> None:
    kubectl("exit 1")
    words = fake_helm(OLD)
    found = CliRunner().invoke(main, ["uninstall"])
    assert found.exit_code == 0
    assert words.read_text().splitlines()[-1].startswith("uninstall|ztunnel|")
    assert "Its authority is left: kubectl delete namespace ztunnel-system" in found.output


def test_crds_go_where_that_is_asked_for(fake_helm: Fake, kubectl: Callable[[str], None]) -> None:
    fake_helm(OLD)
    kubectl(
        f"""case "$1" in
        get) echo {CRDS}sidecars.networking.istio.io; echo {CRDS}gateways.gateway.networking.k8s.io;;
        delete) [ "$2" = {CRDS}sidecars.networking.istio.io ] && [ $# = 2 ];;
        esac"""
    )
    found = CliRunner().invoke(main, ["uninstall", "--purge-crds"])
    assert found.exit_code == 0
    assert "1 CRDs are removed." in found.output
