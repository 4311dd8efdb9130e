"""The laboratory of tests/kernel."""

from __future__ import annotations

from tests.kernel.conftest import kernel, lab

__all__ = ["kernel", "lab"]
