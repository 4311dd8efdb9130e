"""Let the pods of a node into the mesh again that `ztunnel detach` has taken out."""

from __future__ import annotations

from pathlib import Path

import click

from ztunnel.cli.detach import find_pins, pinned
from ztunnel.kernel.probe import require_root
from ztunnel.run.detach import Detached, Detachments


@click.command()
@pinned
def attach(node: str | None, pins: Path | None, pod: tuple[str, ...], run_dir: Path) -> None:
    """Undo `ztunnel detach`, for all pods of the node or some: its proxy enrolls them when it runs."""
    require_root()
    detachments = Detachments(run_dir, find_pins(node, pins))
    before = detachments.read()
    if pod and before.all:
        raise click.UsageError("all pods of the node are detached: attach them without --pod first")
    after = Detached(False, before.pods - frozenset(pod) if pod else frozenset())
    detachments.write(after)
    left = ", ".join(sorted(after.pods)) or "none"
    click.echo(f"the proxy enrolls them within some seconds where it runs; detached is now: {left}")
