"""A kubectl that a test writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Fake = Callable[[str], None]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts a script into PATH as kubectl; it writes down its words."""

    def put(script: str) -> None:
        path = tmp_path / "kubectl"
        path.write_text(f"#!/bin/sh\nprintf '%s ' \"$@\" > {tmp_path}/words\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put
