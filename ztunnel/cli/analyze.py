"""Say what is wrong or doubtful in manifests, before it hurts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ztunnel.analyze.finding import CODES, Finding, Level, parse_suppression
from ztunnel.analyze.findings import analyze as find
from ztunnel.cli.options import echo, find_mesh, formatted

_SOURCE = click.Path(exists=True, allow_dash=True, path_type=Path)
_LEVELS = {level.word.lower(): level for level in Level}


@click.command()
@click.argument("sources", metavar="[FILE|DIRECTORY|-]...", nargs=-1, type=_SOURCE)
@click.option("--name", default="lab", show_default=True, help="Name of the laboratory, if no file is given.")
@click.option("--cluster", is_flag=True, help="The objects of the cluster that kubectl reaches.")
@click.option("-n", "--namespace", default="", help="Only this namespace; all without it.")
@click.option("--suppress", multiple=True, metavar="CODE=OBJECT", help="Not shown: 'IST0118=Service shop/*'.")
@click.option(
    "--failure-threshold",
    "threshold",
    type=click.Choice([*_LEVELS]),
    default="error",
    show_default=True,
    help="From which level on the exit status is 1.",
)
@click.option("-L", "--list-analyzers", "listing", is_flag=True, help="List what is looked for.")
@formatted
def analyze(sources: tuple[Path, ...], listing: bool, threshold: str, form: str, **options: Any) -> None:
    """Say what is wrong or doubtful in the objects of a mesh.

    Codes of Istio (IST...) mean what `istioctl analyze` means by them.

    The exit status is 0 where nothing reaches the threshold, else 1.
    """
    if listing:
        _list()
        return
    try:
        suppressions = [parse_suppression(text) for text in options["suppress"]]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--suppress") from error
    mesh, _ = find_mesh(sources, options["cluster"], options["name"])
    findings = find(mesh, options["namespace"], suppressions)
    _show(findings, form, options["namespace"])
    if any(one.level >= _LEVELS[threshold] for one in findings):
        raise SystemExit(1)


def _list() -> None:
    for code in CODES:
        click.echo(f"{code.code}  {code.level.word:<8} {code.name}")


def _show(findings: list[Finding], form: str, namespace: str) -> None:
    values = [{**asdict(one), "level": one.level.word} for one in findings]
    if form != "text":
        echo(values, form)
    elif not findings:
        where = f"namespace: {namespace}" if namespace else "all namespaces"
        click.echo(f"✔ No validation issues found when analyzing {where}.")
    else:
        click.echo("\n".join(map(str, findings)))
