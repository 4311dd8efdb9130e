"""Run the node proxy: one for each machine, as a DaemonSet or in the laboratory."""

from __future__ import annotations

from typing import Any

import click
import trio

from ztunnel.cli._compose import ca_upstream, settings_of, ungrouped, xds_upstream
from ztunnel.config import PodSource, Settings
from ztunnel.control.fetch import NetworkCertificates, NetworkReports, NetworkSessions
from ztunnel.kernel.probe import require_root
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting
from ztunnel.run.serve import run_node
from ztunnel.run.stop import Stop


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node in the manifests (NODE_NAME).")
@click.option("--manifests", metavar="DIR", help="Folder of Kubernetes and Istio manifests.")
@click.option("--xds-address", metavar="URL", help="Control plane, https://HOST:PORT (XDS_ADDRESS).")
@click.option("--ca-address", metavar="URL", help="Who signs; the control plane by default (CA_ADDRESS).")
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option("--cache-dir", metavar="DIR", help="Cache of compiled eBPF programs.")
@click.option("--run-dir", metavar="DIR", help="Directory of the host where a successor finds the proxy.")
@click.option("--pins", metavar="DIR", help="Directory in a bpffs for pinned programs and maps.")
@click.option(
    "--pod-netns",
    metavar="PATH",
    help="Path of a pod's network namespace, with {namespace} and {name} in it; else the kubelet's pods.",
)
@click.option("--same-node", metavar="MODE", help="auto, direct or mtls: how pods of one node talk.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope=level,...")
def node(**flags: Any) -> None:
    """Run the node proxy until SIGTERM. Every setting is an environment variable as well."""
    settings = settings_of(flags)
    if not settings.node:
        raise click.UsageError("which node is this? Give --node NAME, or set NODE_NAME")
    if settings.manifests is None and not settings.xds_address:
        raise click.UsageError("no control plane: give --manifests DIR, or --xds-address URL")
    for upstream in (xds_upstream(settings), ca_upstream(settings)):
        if upstream.address:
            upstream.check()
    require_root()
    with ungrouped():
        exit_code = trio.run(_run, settings)
    raise SystemExit(exit_code)


async def _run(settings: Settings) -> int:
    """The node proxy, with a control plane over its folder in the same process, or one over the network. Its
    exit code."""
    reporting, stop = Reporting(settings), Stop()
    with reporting.forward_logging():
        async with trio.open_nursery() as nursery:
            await nursery.start(stop.hear)
            with stop.starting:
                plane = await _control(nursery, settings, reporting)
                if settings.pod_source is PodSource.ZDS:
                    from ztunnel.run.zds import run_agent_node  # here, as nobody else is of use to an agent

                    await run_agent_node(settings, plane, reporting, stop)
                else:
                    await run_node(settings, plane, reporting, stop)
            nursery.cancel_scope.cancel()
    return stop.exit_code


async def _control(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> ControlPlane:
    """A control plane in this process, which is imported where it is needed; or those of the network."""
    if settings.manifests is not None:
        from ztunnel.cli._embedded import node_plane

        return await node_plane(nursery, settings, reporting)
    xds = xds_upstream(settings)
    signer, reports = NetworkCertificates(ca_upstream(settings)), NetworkReports(xds)
    return ControlPlane(NetworkSessions(xds).open, signer, report=reports.send)
