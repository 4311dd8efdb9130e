"""Run a waypoint, the HTTP half of the mesh; or see to those of a cluster (apply, list, status, delete)."""

from __future__ import annotations

from typing import Any

import click
import trio

from ztunnel.cli._compose import ca_upstream, settings_of, ungrouped, xds_upstream
from ztunnel.config import Settings
from ztunnel.control.fetch import NetworkCertificates, NetworkSessions
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop
from ztunnel.run.waypoint import run_waypoint


class _Commands(click.Group):
    """Those about the waypoints of a cluster. They are imported where one is called: a waypoint itself takes
    ten megabytes less."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["apply", "delete", "generate", "list", "status"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        from ztunnel.cli._waypoints import COMMANDS

        return COMMANDS[cmd_name]


@click.group(cls=_Commands, invoke_without_command=True)
@click.pass_context
@click.option("--manifests", metavar="DIR", help="Folder of Kubernetes and Istio manifests.")
@click.option("--xds-address", metavar="URL", help="Control plane, https://HOST:PORT (XDS_ADDRESS).")
@click.option("--ca-address", metavar="URL", help="Who signs; the control plane by default (CA_ADDRESS).")
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope=level,...")
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
    """A control plane in this process, which is imported where it is needed; or those of the network."""
    if settings.manifests is not None:
        from ztunnel.cli._embedded import waypoint_plane

        return await waypoint_plane(nursery, settings, reporting)
    signer = NetworkCertificates(ca_upstream(settings))
    return ControlPlane(NetworkSessions(xds_upstream(settings)).open, signer)
