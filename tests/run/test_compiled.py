from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType

import pytest

import ztunnel.model.address  # noqa: F401 (one of ours is loaded)
from ztunnel.run.compiled import compiled_modules


def loaded(monkeypatch: pytest.MonkeyPatch, name: str, file: str | None) -> None:
    module = ModuleType(name)
    if file:
        module.__file__ = file
    monkeypatch.setitem(sys.modules, name, module)


def test_a_checkout_is_interpreted():
    assert compiled_modules() == []


def test_our_modules_that_come_from_a_library_are_named(monkeypatch: pytest.MonkeyPatch):
    library = f"x{EXTENSION_SUFFIXES[0]}"
    loaded(monkeypatch, "ztunnel.z", library)
    loaded(monkeypatch, "ztunnel.a", library)
    loaded(monkeypatch, "ztunnel.python", "x.py")
    loaded(monkeypatch, "ztunnel.namespace", None)
    loaded(monkeypatch, "elsewhere", library)
    assert compiled_modules() == ["ztunnel.a", "ztunnel.z"]
