"""Flags in one text."""

from __future__ import annotations

import pytest

from ztunnel.l7.flags import joined


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "-"),
        (["-", ""], "-"),
        (["-", "UF"], "UF"),
        (["URX", "UF"], "UF,URX"),
        (["FI", "DI", "FI"], "DI,FI"),
        (["ZZ", "NR"], "NR,ZZ"),
    ],
)
def test_flags_stand_in_envoys_order(flags: list[str], expected: str) -> None:
    assert joined(flags) == expected
