"""Bring the mesh of the cluster that kubectl reaches to this version, while its pods talk."""

from __future__ import annotations

from typing import Any

import click

from ztunnel.cli.install import put, with_values
from ztunnel.install.release import Release
from ztunnel.install.run import HelmFailed, chart, installed


@click.command()
@with_values
def upgrade(**options: Any) -> None:
    """Bring the mesh of the cluster to this version and these values, node by node.

    Each node proxy hands its connections over to the next one.
    """
    release = Release(str(chart()), **options)
    try:
        if installed(release.namespace) is None:
            raise click.ClickException(
                f"there is no mesh in namespace {release.namespace}: ztunnel install puts one there"
            )
        put(release)
    except HelmFailed as error:
        raise click.ClickException(str(error)) from error
