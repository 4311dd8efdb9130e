"""A regular expression that is none, or too long, has a fault where it stands."""

import pytest

from tests.state.reading import read
from ztunnel.state.pattern import read_pattern


@pytest.mark.parametrize("text", ["a+", "(?i)/v[12]", "", ".*", "x" * 1024])
def test_one_is_read(text):
    assert read(read_pattern, f"  '{text}'", "p") == (text, [])


@pytest.mark.parametrize("text", ["(", "[z-a]", "*", r"(?P<a", "x" * 1025])
def test_what_is_none_has_a_fault(text):
    assert read(read_pattern, f"  '{text}'", "p") == ("", ["p"])
