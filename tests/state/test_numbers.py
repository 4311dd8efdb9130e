"""Whole numbers are read within their bounds."""

import pytest

from ztunnel.state.numbers import read_count, read_percent, read_share
from ztunnel.state.value import ValueField


def read(reader, value, default=7):
    faults = []
    return reader(ValueField({"n": value}, "", faults), "n", default), len(faults)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, (7, 0)), (0, (0, 0)), (1 << 31, (1 << 31, 0)), (-1, (7, 1)), (1 << 32, (7, 1)), ("3", (7, 1)),
        (1.5, (7, 1)),
    ],
)  # fmt: skip
def test_a_count(value, found):
    assert read(read_count, value) == found


@pytest.mark.parametrize(("value", "found"), [(None, (7, 0)), (100, (100, 0)), (101, (7, 1)), (-1, (7, 1))])
def test_a_percentage(value, found):
    assert read(read_percent, value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, (7, 0)), (12.5, (12.5, 0)), (0, (0, 0)), (100.5, (7, 1)), (-1, (7, 1)), ("a", (7, 1))],
)
def test_a_percentage_with_decimals(value, found):
    assert read(read_share, value) == found


def test_where_there_is_nothing_the_default_counts():
    assert read_count(None, "n", 3) == 3
