"""Put the mesh into the cluster that kubectl reaches, or bring what is there to this version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ztunnel.cli._progress import progress
from ztunnel.install.release import NAMESPACE, PROFILES, Release
from ztunnel.install.run import HelmFailed, chart, helm, installed

Command = Callable[..., Any]


def with_values(command: Command) -> Command:
    """The options that say what is installed."""
    for option in (
        click.option(
            "--timeout", "timeout_seconds", default=300, show_default=True, help="Seconds until ready."
        ),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A value of the chart."),
        click.option("-f", "--values", multiple=True, type=click.Path(exists=True), help="A file of values."),
        click.option(
            "--profile",
            type=click.Choice([*PROFILES]),
            default="default",
            show_default=True,
            help="istiod: world and certificates come from an istiod that is there.",
        ),
        click.option("--system-namespace", "namespace", default=NAMESPACE, show_default=True),
    ):
        command = option(command)
    return command


@click.command()
@with_values
@click.option("--dry-run", is_flag=True, help="Print the manifests, and do nothing.")
def install(dry_run: bool, **options: Any) -> None:
    """Put the mesh into the cluster that kubectl reaches: node proxies and control planes.

    No pod is touched by that: label a namespace, and its pods are in the mesh as they run. It is a release of
    Helm's, so that `helm` knows it as well. Values are those of the chart (`helm show values`).
    """
    release = Release(str(chart()), **options)
    try:
        if dry_run:
            click.echo(helm(release.rendering()))
            return
        put(release)
    except HelmFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        "Bring a namespace into the mesh: kubectl label namespace NAME istio.io/dataplane-mode=ambient"
    )


def put(release: Release) -> None:
    """Install or upgrade, and say so. Raises HelmFailed, with what to look at."""
    before = installed(release.namespace)
    what = f"{before} is brought to this version" if before else "the mesh is installed"
    click.echo(f"{what} in namespace {release.namespace}; until all is ready this takes up to a minute")
    try:
        with progress("waiting until all is ready"):
            helm(release.installing())
    except HelmFailed as error:
        fix = "Look at it: ztunnel status"
        if "another operation" in str(error):
            where = f"ztunnel -n {release.namespace}"
            fix = (
                f"An earlier one was interrupted: `helm history {where}` says which, and "
                f"`helm rollback {where}` goes back to what was before it"
            )
        raise HelmFailed(f"{error}\n{fix}") from error
    click.echo("It is ready. Look at it: ztunnel status")
