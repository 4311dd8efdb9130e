"""Run a waypoint: the HTTP half of the mesh, for what is attached to it by istio.io/use-waypoint."""

from __future__ import annotations

from typing import Any

import click
import trio

from ztunnel.ca.authority import OwnCertificates
from ztunnel.cli._compose import follow_authority, follow_folder, settings_of, ungrouped
from ztunnel.config import Settings
from ztunnel.control.serve import Server
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.stop import Stop
from ztunnel.run.waypoint import run_waypoint


@click.command()
@click.option("--manifests", metavar="DIR", required=True, help="Folder of Kubernetes and Istio manifests.")
@click.option("--state-dir", metavar="DIR", help="Files that survive a restart: the key of our own CA.")
@click.option("--log-level", metavar="LEVELS", help="error, warn, info, debug, trace; or scope:level,...")
def waypoint(**flags: Any) -> None:
    """Run a waypoint until SIGTERM. POD_NAME and POD_NAMESPACE say which pod it is."""
    settings = settings_of(flags)
    with ungrouped():
        exit_code = trio.run(_run, settings)
    raise SystemExit(exit_code)


async def _run(settings: Settings) -> int:
    """The waypoint, with a control plane over its folder in the same process. Its exit code."""
    reporting, stop = Reporting(settings, "waypoint"), Stop()
    with reporting.forward_logging():
        async with trio.open_nursery() as nursery:
            await nursery.start(stop.hear)
            with stop.starting:
                server = Server()
                _, report = await follow_folder(nursery, settings, reporting, server)
                await nursery.start(server.run)
                authority = await follow_authority(nursery, settings, reporting)
                uid = f"{settings.cluster}//Pod/{settings.pod_namespace}/{settings.pod_name}"
                certificates = OwnCertificates(authority, server, uid, now)
                plane = ControlPlane(server.session, certificates, report.dump)
                await run_waypoint(settings, plane, reporting, stop)
            nursery.cancel_scope.cancel()
    return stop.exit_code
