"""Take the mesh out of the cluster that kubectl reaches; its pods go on without it."""

from __future__ import annotations

import json

import click

from ztunnel.analyze.forward import NoCluster, kubectl
from ztunnel.cli._progress import progress
from ztunnel.control.status.enrolment import OURS, REDIRECTION
from ztunnel.install.release import NAMESPACE, Release
from ztunnel.install.run import HelmFailed, chart, helm, installed

_CRDS = (
    ".security.istio.io",
    ".networking.istio.io",
    ".extensions.istio.io",
    ".telemetry.istio.io",
    ".ztunnel.io",
)


@click.command()
@click.option("--system-namespace", "namespace", default=NAMESPACE, show_default=True)
@click.option(
    "--purge-crds", is_flag=True, help="Also Istio's CRDs and ours, with every object of them in the cluster."
)
@click.option(
    "--timeout", "timeout_seconds", default=120, show_default=True, help="Seconds until it is gone."
)
def uninstall(namespace: str, purge_crds: bool, timeout_seconds: int) -> None:
    """Take the mesh out of the cluster. Its pods go on, in plaintext, without a restart.

    Labels, policies and CRDs stay, for they are yours; so do the namespace and the authority's Secret in it,
    by which a mesh that is installed again has the same root.
    """
    release = Release(str(chart()), namespace, timeout_seconds=timeout_seconds)
    try:
        if installed(namespace) is None:
            raise click.ClickException(f"there is no mesh in namespace {namespace}")
        with progress("waiting until its pods have gone"):
            helm(release.removing())
        _unmark()
        if purge_crds:
            _purge()
    except (HelmFailed, NoCluster) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"The mesh is gone from namespace {namespace}.")
    click.echo(f"Its authority is left: kubectl delete namespace {namespace}")


def _unmark() -> None:
    """Take off pods what said that they are in the mesh; an istiod would believe it."""
    pods = json.loads(kubectl(["get", "pods", "--all-namespaces", "-o", "json"])).get("items") or ()
    names: dict[str, list[str]] = {}
    for meta in (one["metadata"] for one in pods):
        if OURS in meta.get("annotations", {}):
            names.setdefault(meta["namespace"], []).append(meta["name"])
    for namespace, marked in names.items():
        kubectl(["annotate", "pods", "-n", namespace, *marked, f"{REDIRECTION}-", f"{OURS}-"])


def _purge() -> None:
    names = kubectl(["get", "customresourcedefinitions", "-o", "name"]).split()
    ours = [name for name in names if name.endswith(_CRDS)]
    if ours:
        kubectl(["delete", *ours])
    click.echo(f"{len(ours)} CRDs are removed.")
