"""Compile, attach and pin a node's eBPF programs, and exit; the node proxy then needs no compiler."""

from __future__ import annotations

import os
from typing import Any

import click

from ztunnel.config import read_settings
from ztunnel.kernel.cgroup import find_root
from ztunnel.redirect.load import Loaded
from ztunnel.run.deny import deny_starting
from ztunnel.run.load import load_programs, redirection_of, service_of
from ztunnel.run.remove import runs

_DONE = {
    Loaded.ANEW: "loaded",
    Loaded.CURRENT: "current, nothing to do",
    Loaded.LEFT: "compiled, and left to the next proxy to put in place: the maps in use have another layout",
}


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node, as its proxy has it (NODE_NAME).")
@click.option("--cache-dir", metavar="DIR", help="Cache of compiled eBPF programs.")
@click.option("--pins", metavar="DIR", help="Directory in a bpffs for pinned programs and maps.")
@click.option("--pods-wait", is_flag=True, help="Every pod waits from now on until the proxy knows it.")
@click.option(
    "--kubepods",
    default="",
    metavar="PATH",
    help="With --pods-wait: the pods' cgroup, below the root of cgroup v2, such as kubepods.slice.",
)
def load(pods_wait: bool, kubepods: str, **flags: Any) -> None:
    """Load the programs of a node, once for each version, kernel and setting.

    What is pinned goes on enforcing after this has exited. Where it is current nothing is done; where it is
    of another version it is replaced while it enforces, or, where its maps are others, by the proxy that
    takes over next. A node proxy opens it, and loads nothing itself, with
    ZTUNNEL_LOAD_PROGRAMS=false.

    With --pods-wait it is for a unit of the machine that runs before the kubelet, so that no pod is quicker
    than the proxy after a reboot. The proxy has to run with ZTUNNEL_STRICT_START=all, which keeps that rule.

    In a pod of a cluster it looks first whether a load balancer changes where pods call to before the mesh
    sees it (Cilium, Calico); it says what to set there, and loads nothing.
    """
    settings = read_settings(flags, os.environ)
    if not settings.node:
        raise click.UsageError("which node is this? Give --node NAME, or set NODE_NAME")
    pins = redirection_of(settings).pins
    done = load_programs(settings, service_of(os.environ), is_served=runs(pins))
    click.echo(f"{pins}: {_DONE[done]}")
    if pods_wait:
        click.echo(f"pods wait: {deny_starting(pins, find_root(), kubepods)}")
