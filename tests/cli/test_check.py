"""`ztunnel check`: exit status, formats, signs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from click.testing import CliRunner, Result

from ztunnel.analyze.checks import Check, State
from ztunnel.cli import check as command
from ztunnel.cli.main import main

GOOD = Check("kernel", "version", State.OK, "6.1")
POOR = Check("limits", "descriptors", State.WARN, "1024", "raise it")
BAD = Check("limits", "port 1", State.FAIL, "taken", "stop who has it")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(*checks: Check, words: tuple[str, ...] = ()) -> Result:
        monkeypatch.setattr(command, "probe_machine", lambda settings: list(checks))
        return CliRunner().invoke(main, ["check", *words])

    return run


def test_only_failures_fail_unless_it_is_strict(call: Callable[..., Result]) -> None:
    assert call(GOOD, POOR).exit_code == 0
    assert call(GOOD, POOR, words=("--strict",)).exit_code == 1
    assert call(GOOD, BAD).exit_code == 1
    assert "1 ok, 0 warnings, 1 failures" in call(GOOD, BAD).output


def test_words_instead_of_signs_where_nobody_looks(call: Callable[..., Result]) -> None:
    assert "[warn]" in call(POOR).output


def test_formats_say_the_same(call: Callable[..., Result]) -> None:
    as_json = json.loads(call(GOOD, POOR, words=("-o", "json")).output)
    assert as_json == yaml.safe_load(call(GOOD, POOR, words=("-o", "yaml")).output)
    assert [one["state"] for one in as_json] == ["ok", "warn"]
