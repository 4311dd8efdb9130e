"""Check whether this machine can run a node proxy, and who is in its way."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
import yaml

from ztunnel.analyze.checks import State, as_text, as_values, verdict
from ztunnel.analyze.probe import probe_machine
from ztunnel.config import read_settings

_MARKS = ("√", "‼", "×")
_COLOURS = ("green", "yellow", "red")


@click.command()
@click.option("--node", metavar="NAME", help="Name of this node, as its proxy has it (NODE_NAME).")
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", help="Format."
)
def check(form: str, strict: bool, **flags: Any) -> None:
    """Check whether this machine can run a node proxy.

    What a proxy would do is tried, and undone: nothing is left behind.

    The exit status is 0 where nothing fails, else 1.
    """
    checks = probe_machine(read_settings(flags, os.environ))
    if form == "text":
        click.echo(as_text(checks, _marks()))
    else:
        values = as_values(checks)
        click.echo(
            json.dumps(values, indent=2) if form == "json" else yaml.safe_dump(values, sort_keys=False)
        )
    if verdict(checks) >= (State.WARN if strict else State.FAIL):
        raise SystemExit(1)


def _marks() -> tuple[str, str, str]:
    """Signs in colour for a terminal that wants it, words otherwise (https://no-color.org)."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return "[ok]", "[warn]", "[fail]"
    ok, warn, fail = (click.style(mark, fg=colour) for mark, colour in zip(_MARKS, _COLOURS, strict=True))
    return ok, warn, fail
