"""Check whether a machine can run a node proxy or a cluster can take a mesh, and who is in their way."""

from __future__ import annotations

import os
import sys

import click

from ztunnel.analyze.ask import METRICS_PORT, Place, ask, nodes_of
from ztunnel.analyze.checks import Check, State, as_text, as_values, verdict
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.forward import NoCluster
from ztunnel.analyze.probe import probe_machine
from ztunnel.analyze.strict import seen, strict_checks
from ztunnel.cli._preflight import preflight
from ztunnel.cli._progress import progress
from ztunnel.cli.options import echo, find_mesh, formatted, placed
from ztunnel.config import read_settings

_MARKS = ("√", "‼", "×")
_COLOURS = ("green", "yellow", "red")


@click.command()
@click.option("--strict", "namespace", metavar="NAMESPACE", help="Who would be cut off by mutual TLS only.")
@click.option("--fail-on-warnings", is_flag=True, help="Warnings count as failures.")
@click.option("--cluster", is_flag=True, help="The cluster that kubectl reaches, instead of this machine.")
@placed()
@formatted
def check(form: str, namespace: str | None, place: Place, fail_on_warnings: bool, cluster: bool) -> None:
    """Check whether this machine can run a node proxy, a cluster a mesh, or a namespace do without plaintext.

    What a proxy would do is tried, and undone: nothing is left behind. With --cluster nothing is tried: its
    API server says of what version it and its nodes are, what you may do there, and which other meshes there
    are; where ours is installed, each node is asked how it is. With --strict NAMESPACE the node proxies'
    metrics say who has called the namespace's pods without an identity, and its objects which of its pods are
    not in the mesh.

    The exit status is 0 where nothing fails and nobody would be cut off, else 1.
    """
    if namespace is not None:
        checks = _strict(namespace, place, cluster)
    elif cluster:
        checks = _preflight(place.namespace)
    else:
        checks = probe_machine(read_settings({"node": place.node or None}, os.environ))
    if form == "text":
        click.echo(as_text(checks, _marks()))
    else:
        values = as_values(checks)
        echo(values, form)
    if verdict(checks) >= (State.WARN if fail_on_warnings else State.FAIL):
        raise SystemExit(1)


def _strict(namespace: str, place: Place, cluster: bool) -> list[Check]:
    mesh, _ = find_mesh((), cluster, place.laboratory)
    one = place.admin or place.pod or place.node
    try:
        with progress("asking the node proxies"):
            places = [place] if one else nodes_of(place, cluster=cluster)
            metrics = [ask(each, "/metrics", METRICS_PORT) for each in places]
        return strict_checks(mesh.world, seen(metrics, namespace), namespace)
    except (NoAnswer, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _preflight(namespace: str) -> list[Check]:
    try:
        with progress("looking at the cluster"):
            return preflight(namespace)
    except NoCluster as error:
        raise click.ClickException(str(error)) from error


def _marks() -> tuple[str, str, str]:
    """Signs in colour for a terminal that wants it, words otherwise (https://no-color.org)."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return "[ok]", "[warn]", "[fail]"
    ok, warn, fail = (click.style(mark, fg=colour) for mark, colour in zip(_MARKS, _COLOURS, strict=True))
    return ok, warn, fail
