"""What commands have in common: what the operator has to fix is one message."""

from __future__ import annotations

import click
import pytest

from ztunnel.cli._compose import settings_of, ungrouped
from ztunnel.errors import ConfigError, Fault, Unsupported


def test_what_is_to_be_fixed_comes_out_of_its_groups() -> None:
    faults = ConfigError(Fault("a", 1, "b", "c")), Unsupported("no kernel")
    with pytest.raises(click.ClickException) as said, ungrouped():
        raise BaseExceptionGroup("", [ExceptionGroup("", [faults[0], faults[0]]), faults[1]])
    assert said.value.message == "a:1: b: c\nno kernel"


def test_a_misspelt_variable_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZTUNNEL_ACCES_LOG", "false")
    assert settings_of({}).access_log
    assert capsys.readouterr().err == (
        "Warning: environment: ZTUNNEL_ACCES_LOG: no such setting; did you mean ZTUNNEL_ACCESS_LOG?\n"
    )


def test_a_bug_stays_one() -> None:
    with pytest.raises(ExceptionGroup), ungrouped():
        raise ExceptionGroup("", [KeyError(), Unsupported("x")])
