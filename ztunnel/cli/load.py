"""Compile, attach and pin a node's eBPF programs, and exit; the node proxy then needs no compiler."""

from __future__ import annotations

import os
from typing import Any

import click

from ztunnel.config import read_settings
from ztunnel.run.load import load_programs, redirection_of, service_of


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node, as its proxy has it (NODE_NAME).")
@click.option("--cache-dir", metavar="DIR", help="Cache of compiled eBPF programs.")
@click.option("--pins", metavar="DIR", help="Directory in a bpffs for pinned programs and maps.")
def load(**flags: Any) -> None:
    """Load the programs of a node, once for each version, kernel and setting.

    What is pinned goes on enforcing after this has exited. Where it is current nothing is done; where it is
    of another version it is replaced while it enforces. A node proxy opens it, and loads nothing itself, with
    ZTUNNEL_LOAD_PROGRAMS=false.

    In a pod of a cluster it looks first whether a load balancer changes where pods call to before the mesh
    sees it (Cilium, Calico); it says what to set there, and loads nothing.
    """
    settings = read_settings(flags, os.environ)
    if not settings.node:
        raise click.UsageError("which node is this? Give --node NAME, or set NODE_NAME")
    done = "loaded" if load_programs(settings, service_of(os.environ)) else "current, nothing to do"
    click.echo(f"{redirection_of(settings).pins}: {done}")
