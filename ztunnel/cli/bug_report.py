"""Gather logs, dumps, metrics and objects in one archive, without keys, tokens and passwords."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from ztunnel.analyze.forward import NAMESPACE, NoCluster
from ztunnel.analyze.gather import Part, cluster_parts, gather, laboratory_parts, machine_parts
from ztunnel.cli._progress import progress
from ztunnel.config import read_settings
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names


@click.command()
@click.option("--name", default="lab", show_default=True, help="Name of the laboratory, if one runs.")
@click.option(
    "--cluster", is_flag=True, help="The cluster that kubectl reaches, also where a laboratory runs."
)
@click.option("--system-namespace", default=NAMESPACE, show_default=True, help="Where node proxies run.")
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), help="Where to write the archive.")
def bug_report(name: str, cluster: bool, system_namespace: str, path: Path | None) -> None:
    """Gather what somebody needs to find out what is wrong, of a laboratory or of a cluster.

    The archive has logs, configuration dumps, metrics, readiness and the objects of the mesh. Private keys,
    tokens and passwords are taken out, Secrets and ConfigMaps are not read; look at it before you hand it
    on all the same.
    """
    parts = machine_parts(read_settings({}, os.environ))
    parts |= _parts(name, cluster, system_namespace)
    with progress("gathering") as shown:
        archive = gather(parts, shown.tell)
    now = datetime.now(UTC).timestamp()
    root = time.strftime("ztunnel-bug-report-%Y%m%d-%H%M%S", time.gmtime(now))
    path = path or Path(f"{root}.tar.gz")
    try:
        archive.write(path, root, now)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    missing = f"; {len(archive.errors)} parts are missing, errors.txt says why" if archive.errors else ""
    click.echo(f"{path}: {len(archive.texts)} files{missing}")


def _parts(name: str, cluster: bool, namespace: str) -> dict[str, Part]:
    names = Names(name, Path("/"))
    try:
        if not cluster and names.directory.is_dir():
            return laboratory_parts(names)
        return cluster_parts(namespace)
    except (LaboratoryFailed, NoCluster) as error:
        raise click.ClickException(f"neither a laboratory {name!r} nor a cluster: {error}") from error
