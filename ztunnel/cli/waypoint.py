"""Run a waypoint, the HTTP half of the mesh; or see to those of a cluster (apply, list, status, delete)."""

from __future__ import annotations

from typing import Any

import click
import trio

from ztunnel.ca.authority import OwnCertificates
from ztunnel.cli._compose import (
    ca_upstream,
    fetch_keys,
    follow_authority,
    follow_folder,
    settings_of,
    ungrouped,
    xds_upstream,
)
from ztunnel.cli._waypoints import apply, delete, generate, list_, status
from ztunnel.config import Settings
from ztunnel.control.fetch import NetworkCertificates, NetworkSessions
from ztunnel.control.serve import Server
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.stop import Stop
from ztunnel.run.waypoint import run_waypoint


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--manifests", metavar="DIR", help="Folder of Kubernetes and Istio manifests.")
@click.option("--xds-address", metavar="URL", help="Control plane, https://HOST:PORT (XDS_ADDRESS).")
@click.option("--ca-address", metavar="URL", help="Who signs; the control plane by default (CA_ADDRESS).")
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope:level,...")
def waypoint(context: click.Context, /, **flags: Any) -> None:
    """Run a waypoint until SIGTERM, for what is attached to it by istio.io/use-waypoint.

    POD_NAME and POD_NAMESPACE say which pod it is. With a command, see to the waypoints that the control
    plane of a cluster (KUBECONFIG) runs.
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(flags)
    if settings.manifests is None and not settings.xds_address:
        raise click.UsageError("no control plane: give --manifests DIR, or --xds-address URL")
    for upstream in (xds_upstream(settings), ca_upstream(settings)):
        if upstream.address:
            upstream.check()
    with ungrouped():
        exit_code = trio.run(_run, settings)
    raise SystemExit(exit_code)


for _command in (apply, delete, generate, list_, status):
    waypoint.add_command(_command)


async def _run(settings: Settings) -> int:
    """The waypoint, with a control plane over its folder in the same process, or one over the network. Its
    exit code."""
    reporting, stop = Reporting(settings, "waypoint"), Stop()
    with reporting.forward_logging():
        async with trio.open_nursery() as nursery:
            await nursery.start(stop.hear)
            with stop.starting:
                plane = await _control(nursery, settings, reporting)
                await run_waypoint(settings, plane, reporting, stop)
            nursery.cancel_scope.cancel()
    return stop.exit_code


async def _control(nursery: trio.Nursery, settings: Settings, reporting: Reporting) -> ControlPlane:
    """A control plane that serves in `nursery`, once its folder has been read; or those of the network."""
    if settings.manifests is None:
        signer = NetworkCertificates(ca_upstream(settings))
        return ControlPlane(NetworkSessions(xds_upstream(settings)).open, signer)
    server = Server()
    keys = fetch_keys(nursery, settings, reporting)
    _, report = await follow_folder(nursery, settings, reporting, server, keys)
    await nursery.start(server.run)
    if settings.ca_address:
        return ControlPlane(server.session, NetworkCertificates(ca_upstream(settings)), report.dump)
    authority = await follow_authority(nursery, settings, reporting)
    uid = f"{settings.cluster}//Pod/{settings.pod_namespace}/{settings.pod_name}"
    return ControlPlane(server.session, OwnCertificates(authority, server, uid, now), report.dump)
