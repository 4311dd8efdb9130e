"""Remove what node proxies left in the kernel: links, pins, maps, and what they changed in pods."""

from __future__ import annotations

from pathlib import Path

import click

from ztunnel.config import Settings
from ztunnel.kernel.probe import require_root
from ztunnel.run.remove import PINS, clean_up, find_installations, forget_files, refuse_running


@click.command()
@click.option("--node", metavar="NAME", help="Only what the proxy of this node left.")
@click.option("--pins", metavar="DIR", type=click.Path(path_type=Path), help="Only what is pinned there.")
@click.option(
    "--run-dir",
    envvar="ZTUNNEL_RUN_DIR",
    default=Settings().run_dir,
    type=click.Path(path_type=Path),
    help="Where proxies keep their sockets.",
)
@click.option("--force", is_flag=True, help="Also while a proxy runs; its pods leave the mesh.")
def clean(node: str | None, pins: Path | None, run_dir: Path, force: bool) -> None:
    """Remove every link, pin and map of node proxies, and their rules in pods. The pods leave the mesh.

    Stop the proxy first. Connections that live go on; new ones are no longer redirected.
    """
    require_root()
    if node is not None and pins is not None:
        raise click.UsageError("--node and --pins say the same: give one of them")
    found = find_installations(node, pins)
    if not found:
        click.echo("Nothing is there to be removed.")
        return
    if not force:
        refuse_running(found)
    for each in found:
        click.echo(f"{each}: {clean_up(each)} pods removed from the mesh, everything unpinned")
        forget_files(each.name, run_dir)
    if PINS.is_dir() and not any(PINS.iterdir()):
        PINS.rmdir()
