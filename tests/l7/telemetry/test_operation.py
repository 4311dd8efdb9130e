from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.telemetry.test_attribute import SUBJECT
from ztunnel.l7.telemetry.attribute import Get, Subject, Unknown, Value
from ztunnel.l7.telemetry.operation import as_text, calculate, compare, decided, is_there

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.text(max_size=5),
    st.floats(allow_nan=False), st.timedeltas(),
)  # fmt: skip


def constant(value: Value) -> Get:
    return lambda subject: value


def unknown(_subject: Subject) -> Value:
    raise Unknown


def outcome(get: Get) -> Value | type[Unknown]:
    try:
        return get(SUBJECT)
    except Unknown:
        return Unknown


@given(VALUES, VALUES, st.sampled_from(["+", "-", "*", "/", "%"]))
def test_a_calculation_has_a_value_of_64_bits_or_none(one: Value, other: Value, sign: str) -> None:
    found = outcome(calculate(sign, constant(one), constant(other)))
    assert not isinstance(found, int) or -(1 << 63) <= found < 1 << 63


@given(VALUES, VALUES)
def test_two_values_are_in_one_order_or_in_none(one: Value, other: Value) -> None:
    signs = [outcome(compare(sign, constant(one), constant(other))) for sign in ("<", "<=", ">", ">=")]
    if signs[0] is Unknown:
        assert signs == [Unknown] * 4
    else:
        assert signs[0] is not signs[3]
        assert signs[2] is not signs[1]


@pytest.mark.parametrize(
    ("one", "other", "either", "both"),
    [
        (True, True, True, True),
        (True, False, True, False),
        (True, None, True, Unknown),
        (False, None, Unknown, False),
        (None, True, True, Unknown),
        (None, False, Unknown, False),
        (None, None, Unknown, Unknown),
    ],
)
def test_the_side_that_decides_counts(
    one: bool | None, other: bool | None, either: Value | type[Unknown], both: Value | type[Unknown]
) -> None:
    sides = [unknown if side is None else constant(side) for side in (one, other)]
    assert outcome(decided(sides[0], sides[1], True)) == either
    assert outcome(decided(sides[0], sides[1], False)) == both


def test_a_value_as_text() -> None:
    assert [as_text(value) for value in (None, True, 5, 2.0, 0.5, "x", timedelta(seconds=90))] == [
        None, "true", "5", "2", "0.5", "x", "90s",
    ]  # fmt: skip


def test_what_has_a_value_is_there() -> None:
    assert is_there(constant(None), SUBJECT)
    assert not is_there(unknown, SUBJECT)
