"""A message stays on its line, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.telemetry.bare import Bare
from ztunnel.telemetry.level import Level
from ztunnel.telemetry.line import bare, quote, render_json, render_text, text_head, timestamp

TIME = "2026-08-20T10:00:00.123456Z"
anything = st.text(st.characters())


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (1_787_220_000_123_456_789, TIME),
        (1_787_220_000_000_000_000, "2026-08-20T10:00:00.000000Z"),
        (1_787_220_001_000_000_999, "2026-08-20T10:00:01.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_a_time_has_microseconds(time, text):
    assert timestamp(time) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        ("Zoë 東京", '"Zoë 東京"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("a\r\n2026 error", r'"a\r\n2026 error"'),
        ("\x1b[31mred\x1b[0m", r'"\u{1b}[31mred\u{1b}[0m"'),
        ("a\tb\0c\x7f\x9b", r'"a\tb\0c\u{7f}\u{9b}"'),
        ("pay\u202egnp", r'"pay\u{202e}gnp"'),
        ("a\u2028b\u200b", r'"a\u{2028}b\u{200b}"'),
        ("\ud800", r'"\u{d800}"'),
        ("x" * 3000, f'"{"x" * 2048}..."'),
    ],
)
def test_what_could_leave_its_quotes_or_its_line_is_escaped(text, quoted):
    assert quote(text) == quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[fd00::1]:80", "[fd00::1]:80"),
        ("a.example:80", "a.example:80"),
        ('a b="c"', r'"a b=\"c\""'),
        ("", '""'),
        ("a\nb", r'"a\nb"'),
    ],
)
def test_an_address_stands_bare_unless_it_is_none(text, shown):
    assert bare(text) == shown


@given(anything)
def test_a_quoted_text_has_one_line_of_printable_characters_and_no_quote_inside(text):
    quoted = quote(text)
    assert quoted.isprintable()
    assert quoted.encode()
    inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inner


@given(anything, anything, anything)
def test_a_text_line_has_as_many_tabs_as_columns(message, value, key_value):
    head = text_head(TIME, Level.WARN, "xds")
    line = render_text(head, message, [("a", value), ("b", Bare(key_value)), ("c", 3), ("d", True)])
    assert len(line.splitlines()) == 1
    assert line.count("\t") == 4
    assert line.startswith(f"{TIME}\twarn\txds\t")
    assert line.endswith(" c=3 d=true")


def test_without_fields_a_line_ends_with_its_message():
    assert (
        render_text(text_head(TIME, Level.INFO, "app"), 'ready "now"', [])
        == f'{TIME}\tinfo\tapp\tready "now"'
    )


@given(anything, anything)
def test_a_json_line_is_one_line_of_ascii_that_says_the_same(message, value):
    line = render_json(TIME, Level.ERROR, "xds", message, [("a.b", value), ("n", 1)])
    assert line.isascii()
    assert line.isprintable()
    entry = json.loads(line)
    assert list(entry) == ["level", "time", "scope", "message", "a.b", "n"]
    assert (entry["message"], entry["a.b"], entry["n"]) == (message, value, 1)
