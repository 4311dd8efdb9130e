"""Keep what a node proxy listens on until the next one is there, and let pods go where none will come."""

from __future__ import annotations

import os
from typing import Any

import click
import trio

from ztunnel.config import Settings, read_settings
from ztunnel.kernel import capability, files
from ztunnel.kernel.probe import require_root
from ztunnel.run.hold import Holder, Pinned, Station
from ztunnel.run.load import redirection_of
from ztunnel.run.owner import Owner
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node, as its proxy has it (NODE_NAME).")
@click.option("--run-dir", metavar="DIR", help="The proxy's ZTUNNEL_RUN_DIR.")
@click.option("--pins", metavar="DIR", help="Where its proxy pins, where that is another place.")
@click.option("--daemon-set", metavar="NAMESPACE/NAME", help="That of the node proxies.")
def hold(**flags: Any) -> None:
    """Run beside the proxies of a node until SIGTERM, for the times in which there is none.

    A proxy that ends before the next one starts leaves its listeners here: new connections wait in them
    (ZTUNNEL_HOLD_TIMEOUT), and are not refused. Where no proxy runs, be it that it starts and ends again and
    again, the API server is asked for their DaemonSet: when that is gone, the node's pods are let go.
    """
    settings = read_settings(flags, os.environ)
    if not settings.node:
        raise click.UsageError("which node is this? Give --node NAME, or set NODE_NAME")
    require_root()
    capability.require(capability.HOLDER, "the holder")
    files.raise_limit()
    refused = trio.run(_run, settings)
    if refused:
        raise click.ClickException(refused)


async def _run(settings: Settings) -> str:
    """Why it cannot; empty when it was told to end."""
    reporting, stop = Reporting(settings, "holder", ()), Stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporting.writer.run)
        await nursery.start(stop.hear)
        log = reporting.log.scoped("hold")
        owner = Owner(settings.daemon_set, settings.node, log)
        pins = redirection_of(settings).pins
        station = Station(pins, settings.run_dir, Pinned(pins, settings.run_dir))
        refused = await Holder(station, owner, log, settings.hold_seconds).run(stop)
        nursery.cancel_scope.cancel()
    return refused
