"""Regular expressions, what stands for what they find, and formats have a fault where they are wrong."""

import pytest

from tests.state.reading import read
from ztunnel.state.pattern import read_format, read_pattern, read_substitute


@pytest.mark.parametrize("text", ["a+", "(?i)/v[12]", "", ".*", "x" * 1024])
def test_a_regular_expression_is_read(text):
    assert read(read_pattern, f"  '{text}'", "p") == (text, [])


@pytest.mark.parametrize(
    "text", ["(", "[z-a]", "*", r"(?P<a", "x" * 1025, r"a(?=b)", r"(a)\1", "((a{1,999}){99})"]
)
def test_what_is_none_has_a_fault(text):
    """Look-ahead and back references are none of RE2's, which takes no time for any text."""
    assert read(read_pattern, f"  '{text}'", "p") == ("", ["p"])


@pytest.mark.parametrize(("text", "faults"), [(r"/x/\1", []), ("/x", []), (r"\2", ["s"]), ("\\x", ["s"])])
def test_a_substitute_names_groups_that_there_are(text, faults):
    assert read(lambda place: read_substitute(place, "(a)"), f"  '{text}'", "s")[1] == faults


@pytest.mark.parametrize(
    ("text", "faults"), [("%REQ(x-user)%", []), ("5%%", []), ("5%", ["f"]), ("%NOTHING%", ["f"])]
)
def test_a_format_has_operators_that_there_are(text, faults):
    assert read(read_format, f"  '{text}'", "f") == ("" if faults else text, faults)
