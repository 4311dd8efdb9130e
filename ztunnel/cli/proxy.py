"""Run the node proxy as Istio's chart of ztunnel starts it: `ztunnel proxy ztunnel`."""

from __future__ import annotations

import click

from ztunnel.cli.node import node


@click.command()
@click.argument("kind", type=click.Choice(["ztunnel"]), default="ztunnel")
@click.pass_context
def proxy(ctx: click.Context, kind: str) -> None:
    """Run the node proxy as `ztunnel node` does, with settings from the environment alone.

    These are the words of the DaemonSet in Istio's chart (manifests/charts/ztunnel): with our image it needs
    no other change.
    """
    ctx.invoke(node)
