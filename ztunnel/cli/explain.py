"""Say what becomes of a call, and which policy decides it, without making it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from ztunnel.analyze.ask import Place, ask
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.mesh import Mesh
from ztunnel.cli.options import echo, find_mesh, formatted, placed
from ztunnel.config import Settings
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import Unknown, find_call
from ztunnel.explain.text import as_text, as_values
from ztunnel.explain.waypoint import HttpCall
from ztunnel.model.workload import SameNode

_SOURCE = click.Path(exists=True, allow_dash=True, path_type=Path)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO[:PORT]")
@click.option("-f", "--filename", "sources", multiple=True, type=_SOURCE, help="A file, a directory, or -.")
@click.option("--cluster", is_flag=True, help="The objects of the cluster that kubectl reaches.")
@click.option("--method", metavar="METHOD", help="What is asked of a waypoint: GET.")
@click.option("--path", metavar="PATH", help="And of which path: /.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="And with which headers.")
@placed()
@click.option("--same-node", type=click.Choice([*SameNode]), help="As the node proxies have it (auto).")
@formatted
def explain(source: str, destination: str, form: str, place: Place, **options: Any) -> None:
    """Say what becomes of a call, and which policy decides it.

    FROM is a pod or what owns it (`shop/frontend`) or an address; TO that, or a service (`orders.shop:80`).
    The mesh is that of manifests (-f), of a cluster's objects (--cluster), that which a running node proxy
    has (--node, --pod, --admin), or else that of a laboratory.

    The exit status is 0 where the call is allowed, 1 where it is refused, 2 where it cannot be told.
    """
    if place.admin or place.pod or place.node:
        values = _asked(place, source, destination, _http(options))
    else:
        mesh = find_mesh(options["sources"], options["cluster"], place.laboratory)
        values = _worked_out((source, destination), options["same_node"], _http(options), *mesh)
    if form == "text":
        click.echo(values["text"])
    else:
        shown = {key: value for key, value in values.items() if key != "text"}
        echo(shown, form)
    if not values["allowed"]:
        raise SystemExit(1)


def _http(options: dict[str, Any]) -> HttpCall:
    headers = []
    for text in options["headers"]:
        name, colon, value = text.partition(":")
        if not colon or not name:
            raise click.UsageError(f"{text!r} is not NAME:VALUE")
        headers.append((name, value.strip()))
    return HttpCall(
        options["method"] or "GET", options["path"] or "/", tuple(headers), datetime.now(UTC).timestamp()
    )


def _worked_out(
    ends: tuple[str, str], same_node: str | None, http: HttpCall, mesh: Mesh, settings: Settings
) -> dict[str, Any]:
    for fault in mesh.faults:
        click.echo(f"Warning: {fault}", err=True)
    try:
        call = find_call(mesh.world, *ends)
        mode = SameNode(same_node) if same_node else settings.same_node
        explanation = explain_call(mesh.world, call, mode, http)
    except (Unknown, ValueError) as error:
        raise click.UsageError(str(error)) from error
    values: dict[str, Any] = json.loads(json.dumps(as_values(explanation)))
    return {**values, "text": as_text(explanation)}


def _asked(place: Place, source: str, destination: str, http: HttpCall) -> dict[str, Any]:
    """What a running node proxy answers; of a waypoint it knows only that it decides."""
    if http != HttpCall():
        raise click.UsageError("a node proxy knows no HTTP rules: use -f or --cluster with --method, --path")
    query = urlencode({"from": source, "to": destination})
    try:
        found: dict[str, Any] = json.loads(ask(place, f"/explain?{query}"))
    except NoAnswer as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(f"no explanation came: {error}") from error
    return found
