"""A helm that a test writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def fake_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a script into PATH as helm; it adds a line of its words, each with `|` behind it, to the file that
    this returns."""

    def put(script: str) -> Path:
        words = tmp_path / "helm-words"
        words.unlink(missing_ok=True)
        path = tmp_path / "helm"
        note = f"{{ printf '%s|' \"$@\"; echo; }} >> {words}"
        path.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return words

    return put
