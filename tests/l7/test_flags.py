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
        (["URX", "UF"], "URX,UF"),
        (["DI", "FI", "DI"], "DI,FI"),
    ],
)
def test_flags_stand_as_they_came(flags: list[str], expected: str) -> None:
    assert joined(flags) == expected
