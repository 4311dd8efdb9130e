"""The value of grpc-timeout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.rpc.timeout import parse, render


@given(st.floats(0, 3e11))
def test_a_timeout_is_never_shortened_and_hardly_lengthened(seconds: float) -> None:
    got = parse(render(seconds))
    assert got is not None
    assert seconds * (1 - 1e-9) - 1e-14 <= got <= seconds * 1.0003 + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("250m", 0.25), ("5u", 5e-6), ("99999999n", 0.099999999)],
)
def test_units(text: str, seconds: float) -> None:
    assert parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("untrusted", ["", "1", "S", "-1S", "1s", "123456789S", "1.5S", " 1S", "1S ", "١S"])
def test_what_is_no_timeout(untrusted: str) -> None:
    assert parse(untrusted) is None
