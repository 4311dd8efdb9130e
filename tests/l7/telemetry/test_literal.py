from __future__ import annotations

from datetime import timedelta

import pytest

from ztunnel.l7.telemetry.literal import duration, number, unquoted


@pytest.mark.parametrize(
    ("text", "value"),
    [("1s", 1), ("1.5s", 1.5), ("20ms", 0.02), ("1h30m", 5400), ("5us", 5e-6), ("0s", 0), ("1000ns", 1e-6)],
)
def test_a_duration_is_in_seconds(text: str, value: float) -> None:
    assert duration(text) == timedelta(seconds=value)


@pytest.mark.parametrize("text", ["", "1", "s", "1d", "-1s", "1 s", "1e3s", "9" * 63 + "h", "99999999999s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


def test_a_number_is_of_64_bits() -> None:
    assert (number("7"), number("0x10"), number("1.5"), number("2e3")) == (7, 16, 1.5, 2000.0)
    assert number(str((1 << 63) - 1)) == (1 << 63) - 1
    with pytest.raises(ValueError, match="64 bits"):
        number(str(1 << 63))


def test_a_text_has_escapes_unless_it_is_raw() -> None:
    assert unquoted(r"'a\n\'\\\x41\u00e4'") == "a\n'\\A\u00e4"
    assert unquoted('r"\\d"') == "\\d"
    with pytest.raises(ValueError, match="no character"):
        unquoted(r"'\q'")
