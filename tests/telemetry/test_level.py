"""Levels by scope."""

from __future__ import annotations

import pytest

from ztunnel.telemetry.level import Level, Levels, parse_levels


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("info", {"": Level.INFO}),
        ("WARNING", {"": Level.WARN}),
        ("info,access=off", {"": Level.INFO, "access": Level.OFF}),
        ("xds:debug,ztunnel::proxy:trace", {"xds": Level.DEBUG, "ztunnel::proxy": Level.TRACE}),
        ("ztunnel::xds=debug", {"ztunnel::xds": Level.DEBUG}),
    ],
)
def test_levels_are_written_as_istio_writes_them(text, levels):
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "loud", "info,", "=info=", "a b=info", "x" * 65 + "=info", "\x1b=info"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not <level>"):
        parse_levels(text)


def test_a_scope_without_a_level_has_the_default():
    levels = Levels("warn,access=debug")
    assert levels.enabled("access", Level.DEBUG)
    assert not levels.enabled("xds", Level.INFO)
    assert levels.enabled("xds", Level.ERROR)
    assert not Levels("off").enabled("xds", Level.ERROR)


def test_levels_change_and_go_back():
    levels = Levels("info,access=off")
    levels.change("xds=trace")
    assert str(levels) == "info,access=off,xds=trace"
    levels.change("debug")
    assert str(levels) == "debug"
    levels.reset()
    assert str(levels) == "info,access=off"


def test_a_wrong_change_changes_nothing():
    levels = Levels()
    with pytest.raises(ValueError, match="loud"):
        levels.change("xds=debug,loud")
    assert str(levels) == "info"


def test_the_number_of_scopes_is_bounded():
    levels = Levels()
    for number in range(255):
        levels.change(f"scope{number}=debug")
    with pytest.raises(ValueError, match="at most"):
        levels.change("one=debug,two=debug")
    assert str(levels).count("=") == 255
