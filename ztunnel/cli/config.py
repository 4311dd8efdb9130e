"""Show what a node proxy knows: workloads, services, policies, certificates, connections."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml

from ztunnel.analyze.fetch import NoAnswer, fetch
from ztunnel.analyze.summary import SECTIONS, Wanted, table
from ztunnel.demo.call import get
from ztunnel.demo.check import check
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names

_ADMIN_PORT = 15000
_KINDS = (*SECTIONS, "all")


@click.command()
@click.argument("kind", metavar="|".join(_KINDS), type=click.Choice(_KINDS))
@click.option("--node", default="node-1", show_default=True, metavar="NODE", help="A node of a laboratory.")
@click.option("--name", default="lab", show_default=True, help="Name of the laboratory.")
@click.option("--admin", metavar="HOST:PORT", help="A node proxy's admin address, instead of a laboratory.")
@click.option("--file", "file", type=click.Path(exists=True, path_type=Path), help="A dump that was saved.")
@click.option("-n", "--namespace", default="", help="Only what is of this namespace.")
@click.option("--address", default="", help="Only workloads with this address.")
@click.option("--on-node", default="", help="Only workloads that run there.")
@click.option("--direction", type=click.Choice(["inbound", "outbound"]), help="Only such connections.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", help="Format."
)
def config(kind: str, form: str, **options: Any) -> None:
    """Show what a node proxy knows, as `istioctl ztunnel-config` does.

    The dump is that of a node of a laboratory, of the proxy at an admin address (in a cluster:
    `kubectl -n ztunnel-system port-forward POD 15000`), or of a file that `/config_dump` was saved to.
    """
    dump = _dump(options)
    wanted = Wanted(options["namespace"], options["address"], options["on_node"], options["direction"] or "")
    kinds = [*SECTIONS] if kind == "all" else [kind]
    if form == "text":
        now = datetime.now(UTC)
        parts = [(SECTIONS[each].title, table(SECTIONS[each], dump, wanted, now)) for each in kinds]
        titled = [f"------ {title} ------\n\n{text}" if kind == "all" else text for title, text in parts]
        click.echo("\n\n".join(titled))
        return
    found = {each: SECTIONS[each].entries(dump, wanted) for each in kinds}
    values = found if kind == "all" else found[kind]
    click.echo(json.dumps(values, indent=2) if form == "json" else yaml.safe_dump(values, sort_keys=False))


def _dump(options: dict[str, Any]) -> dict[str, Any]:
    if options["file"] is not None:
        return _parse(options["file"].read_text(errors="replace"), str(options["file"]))
    if options["admin"]:
        try:
            return _parse(fetch(options["admin"], "/config_dump"), options["admin"])
        except NoAnswer as error:
            raise click.ClickException(str(error)) from error
    names = Names(options["name"], check())
    try:
        _, text = get(names.netns(names.node(options["node"])), _ADMIN_PORT, "/config_dump")
    except LaboratoryFailed as error:
        message = f"{error}\nName a proxy with --admin, a dump with --file, or a laboratory with --name"
        raise click.ClickException(message) from error
    return _parse(text, options["node"])


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.ClickException(f"{where}: no configuration dump: {error}") from error
    if not isinstance(found, dict) or "workloads" not in found:
        raise click.ClickException(f"{where}: no configuration dump: it has no workloads")
    return found
