"""Show what a node proxy knows: workloads, services, policies, certificates, connections."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ztunnel.analyze.ask import Place, ask
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.summary import SECTIONS, Wanted, table
from ztunnel.cli.options import echo, formatted, placed

_KINDS = (*SECTIONS, "all")


@click.command()
@click.argument("kind", metavar="WHAT", type=click.Choice(_KINDS))
@placed(default="node-1")
@click.option("--file", "file", type=click.Path(exists=True, path_type=Path), help="A dump that was saved.")
@click.option("-n", "--namespace", default="", help="Only what is of this namespace.")
@click.option("--address", default="", help="Only workloads with this address.")
@click.option("--on-node", default="", help="Only workloads that run there.")
@click.option("--direction", type=click.Choice(["inbound", "outbound"]), help="Only such connections.")
@formatted
def config(kind: str, form: str, place: Place, file: Path | None, **only: Any) -> None:
    """Show what a node proxy knows, as `istioctl ztunnel-config` does.

    WHAT is workloads, services, policies, certificates, connections or all.

    The dump is that of a node of a laboratory or cluster, of the proxy at an admin address, or of a file that
    `/config_dump` was saved to.
    """
    dump = _dump(place, file)
    wanted = Wanted(only["namespace"], only["address"], only["on_node"], only["direction"] or "")
    kinds = [*SECTIONS] if kind == "all" else [kind]
    if form == "text":
        now = datetime.now(UTC)
        parts = [(SECTIONS[each].title, table(SECTIONS[each], dump, wanted, now)) for each in kinds]
        titled = [f"------ {title} ------\n\n{text}" if kind == "all" else text for title, text in parts]
        click.echo("\n\n".join(titled))
        return
    found = {each: SECTIONS[each].entries(dump, wanted) for each in kinds}
    values = found if kind == "all" else found[kind]
    echo(values, form)


def _dump(place: Place, file: Path | None) -> dict[str, Any]:
    if file is not None:
        return _parse(file.read_text(errors="replace"), str(file))
    try:
        return _parse(ask(place, "/config_dump"), place.admin or place.pod or place.node)
    except NoAnswer as error:
        raise click.ClickException(str(error)) from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.ClickException(f"{where}: no configuration dump: {error}") from error
    if not isinstance(found, dict) or "workloads" not in found:
        raise click.ClickException(f"{where}: no configuration dump: it has no workloads")
    return found
