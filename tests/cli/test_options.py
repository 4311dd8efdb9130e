"""Options that say which node proxy is meant."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest
import yaml
from click.testing import CliRunner

from ztunnel.analyze.ask import Place
from ztunnel.cli.main import Commands
from ztunnel.cli.options import echo, placed


@click.command()
@placed(default="n0")
@click.option("--other", default=1)
def command(place: Place, other: int) -> None:
    click.echo(f"{place} {other}")


def test_they_become_one_value() -> None:
    words = ["--node", "n1", "--pod", "p", "--admin", "a:1", "--name", "x", "--other", "2"]
    assert CliRunner().invoke(command, words).output == f"{Place('a:1', 'p', 'n1', 'x')} 2\n"
    assert CliRunner().invoke(command).output == f"{Place(node='n0')} 1\n"


def test_this_module_is_no_command() -> None:
    assert "options" not in Commands().list_commands(click.Context(command))


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_values_are_printed_in_the_format_that_is_wanted(
    form: str, read: Callable[[str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"b": [1, "x"], "a": None}
    echo(values, form)
    printed = capsys.readouterr().out
    assert read(printed) == values
    assert printed.index("b") < printed.index("a")
