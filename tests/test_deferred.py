"""A package is run when something of its own is asked for, and not before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ztunnel.deferred import defer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules that tells when it is run."""
    name = f"heavy_{tmp_path.name.replace('-', '_')}"
    place = tmp_path / name
    place.mkdir()
    (place / "__init__.py").write_text("from . import whole\nran = 1\nfrom .light import message as told\n")
    (place / "light.py").write_text("message = 'light'\n")
    (place / "whole.py").write_text("")
    (place / "alone.py").write_text("message = 'alone'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_submodule_is_had_without_the_package(package: str) -> None:
    defer(package)
    module = __import__(package)
    assert module.light.message == "light"
    assert f"{package}.whole" not in sys.modules
    assert module.ran
    assert f"{package}.whole" in sys.modules
    assert module.told == "light"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_what_is_imported_already_or_not_there_stays_as_it_is(package: str) -> None:
    module = __import__(package)
    defer(package)
    assert sys.modules[package] is module
    defer("no_such_package_anywhere")
    assert "no_such_package_anywhere" not in sys.modules


def test_a_module_is_run_when_something_of_it_is_asked_for(package: str) -> None:
    name = f"{package}.alone"
    defer(name)
    alone = __import__(package, fromlist=["alone"]).alone
    assert alone is sys.modules[name]
    assert "message" not in vars(alone)
    assert alone.message == "alone"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = alone.nothing


def test_what_a_package_imports_itself_is_no_longer_deferred(package: str) -> None:
    defer(f"{package}.light")
    assert vars(sys.modules[f"{package}.light"])["message"] == "light"
    defer(f"{package}.light.below_a_module")
    defer("no_such_package_anywhere.below")
