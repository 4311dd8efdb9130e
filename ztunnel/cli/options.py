"""Options that several commands have."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import yaml

from ztunnel.analyze.ask import Place
from ztunnel.analyze.forward import NAMESPACE, NoCluster
from ztunnel.analyze.load import load_cluster, load_mesh
from ztunnel.analyze.mesh import Mesh
from ztunnel.cli._progress import progress
from ztunnel.config import Settings, read_settings
from ztunnel.control.settings import mesh_settings
from ztunnel.demo.names import RUN
from ztunnel.errors import ConfigError, Fault

Command = Callable[..., Any]

formatted = click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", help="Format."
)
"""The command gets it as `form`."""


def echo(values: object, form: str) -> None:
    """Print plain values as `json` or `yaml`."""
    click.echo(json.dumps(values, indent=2) if form == "json" else yaml.safe_dump(values, sort_keys=False))


def placed(default: str = "") -> Callable[[Command], Command]:
    """Options that say which node proxy is meant; the command gets them as `place`.

    Args:
        default: the node where none is named.
    """

    def decorate(command: Command) -> Command:
        @click.option(
            "--node", default=default, metavar="NODE", help="Of a laboratory, or else of a cluster."
        )
        @click.option("--pod", default="", metavar="POD", help="A node proxy's pod in a cluster.")
        @click.option("--admin", default="", metavar="HOST:PORT", help="A node proxy's admin address.")
        @click.option("--name", default="lab", show_default=True, help="Name of the laboratory.")
        @click.option(
            "--system-namespace", default=NAMESPACE, show_default=True, help="Where node proxies run."
        )
        @wraps(command)
        def call(*, node: str, pod: str, admin: str, name: str, system_namespace: str, **others: Any) -> Any:
            return command(place=Place(admin, pod, node, name, system_namespace), **others)

        return call

    return decorate


def find_mesh(sources: Sequence[Path], cluster: bool, laboratory: str) -> tuple[Mesh, Settings]:
    """The mesh that is meant: of files, of the cluster that kubectl reaches, or of a laboratory.

    Raises:
        ConfigError: it cannot be read, or there is none. ClickException: the cluster cannot be asked.
    """
    settings = read_settings({}, os.environ)
    if cluster and not sources:
        try:
            with progress("reading the objects of the cluster"):
                return load_cluster(mesh_settings(settings)), settings
        except NoCluster as error:
            raise click.ClickException(str(error)) from error
    folder = RUN / laboratory / "manifests"
    if not sources and not folder.is_dir():
        message = "no laboratory of this name runs: name manifests, or a cluster with --cluster"
        raise ConfigError(Fault("--name", 0, laboratory, message))
    return load_mesh(sources or (folder,), mesh_settings(settings)), settings
