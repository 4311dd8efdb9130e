"""Say what becomes of a call, and which policy decides it, without making it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import yaml

from ztunnel.analyze.ask import Place, ask
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.load import load_mesh
from ztunnel.cli.options import placed
from ztunnel.config import read_settings
from ztunnel.control.settings import mesh_settings
from ztunnel.demo.names import RUN
from ztunnel.errors import ConfigError, Fault
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import Unknown, find_call
from ztunnel.explain.text import as_text, as_values
from ztunnel.model.workload import SameNode

_SOURCE = click.Path(exists=True, allow_dash=True, path_type=Path)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO[:PORT]")
@click.option("-f", "--filename", "sources", multiple=True, type=_SOURCE, help="A file, a directory, or -.")
@placed()
@click.option("--same-node", metavar="MODE", help="auto, direct or mtls, as the node proxies have it.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", help="Format."
)
def explain(source: str, destination: str, form: str, place: Place, **options: Any) -> None:
    """Say what becomes of a call, and which policy decides it.

    FROM is a pod or what owns it (`shop/frontend`) or an address; TO that, or a service (`orders.shop:80`).
    The mesh is that of manifests (-f), that which a running node proxy has (--node, --pod, --admin), or else
    that of a laboratory.

    The exit status is 0 where the call is allowed, 1 where it is refused, 2 where it cannot be told.
    """
    if place.admin or place.pod or place.node:
        values = _asked(place, source, destination)
    else:
        values = _worked_out(source, destination, name=place.laboratory, **options)
    if form == "text":
        click.echo(values["text"])
    else:
        shown = {key: value for key, value in values.items() if key != "text"}
        click.echo(json.dumps(shown, indent=2) if form == "json" else yaml.safe_dump(shown, sort_keys=False))
    if not values["allowed"]:
        raise SystemExit(1)


def _worked_out(
    source: str, destination: str, sources: tuple[Path, ...], name: str, same_node: str | None
) -> dict[str, Any]:
    settings = read_settings({"same_node": same_node}, os.environ)
    mesh = load_mesh(sources or (laboratory_folder(name),), mesh_settings(settings))
    for fault in mesh.faults:
        click.echo(f"Warning: {fault}", err=True)
    try:
        call = find_call(mesh.world, source, destination)
    except Unknown as error:
        raise click.UsageError(str(error)) from error
    explanation = explain_call(mesh.world, call, SameNode(settings.same_node))
    values: dict[str, Any] = json.loads(json.dumps(as_values(explanation)))
    return {**values, "text": as_text(explanation)}


def laboratory_folder(name: str) -> Path:
    """Where the completed objects of a laboratory are. Raises ConfigError: none of this name runs."""
    folder = RUN / name / "manifests"
    if not folder.is_dir():
        message = (
            "no laboratory of this name runs: name manifests with -f, or a node proxy with --node or --admin"
        )
        raise ConfigError(Fault("--name", 0, name, message))
    return folder


def _asked(place: Place, source: str, destination: str) -> dict[str, Any]:
    """What a running node proxy answers."""
    query = urlencode({"from": source, "to": destination})
    try:
        found: dict[str, Any] = json.loads(ask(place, f"/explain?{query}"))
    except NoAnswer as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(f"no explanation came: {error}") from error
    return found
