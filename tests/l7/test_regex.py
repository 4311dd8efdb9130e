"""Expressions of RE2: what they match, what is refused, and what a look tells of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.regex import MOST_CHARACTERS, Regex, Substitute, literal_prefix, regex


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/a", b"/a", True),
        ("/a", b"/ab", False),
        ("/a", b"x/a", False),
        ("a|b", b"b", True),
        ("^(.*?;)?(user=jason)(;.*)?$", b"x=1;user=jason", True),
        ("(?i)/A", b"/a", True),
        ("/caf\u00e9", "/caf\u00e9".encode(), True),
        (".*", b"", True),
        (".", b"\xff", False),
        (r"\d+", b"12\n", False),
    ],
)
def test_it_matches_the_whole_text(pattern: str, text: bytes, expected: bool) -> None:
    assert regex(pattern).matches(text) is expected


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing \\)"),
        ("*", "no argument for repetition"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("a{1001}", "invalid repetition size"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        (r"[\pL\pN]{1000}", "too large"),
        ("a" * (MOST_CHARACTERS + 1), "at most 1024 characters"),
        ("\udc80", "not text"),
    ],
)
def test_what_is_no_expression_or_too_large_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        regex(pattern)


def test_what_would_take_pythons_expressions_years_takes_no_time() -> None:
    began = time.perf_counter()
    assert not regex("(x+x+)+y").matches(b"x" * 60_000)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("/api/v[0-9]+", "/api/v"),
        ("/a+", "/a"),
        ("/ab?c", "/a"),
        ("/ab*", "/a"),
        ("/ab{2}", "/a"),
        (r"^/a\.b/\d", "/a.b/"),
        (r"/a\-?b", "/a"),
        ("/a|/b", ""),
        ("/a(b|c)", "/a"),
        ("/a[|]", ""),
        (r"\Q/a|b\E", ""),
        ("(?i)/a", ""),
        (".*/a", ""),
        (r"/a\|b", "/a|b"),
        ("", ""),
    ],
)
def test_a_look_tells_how_texts_begin(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


PIECES = st.sampled_from(
    ["a", "b", "/", r"\.", "a+", "a*", "b?", "(a|b)", "[ab]", "|", "^", ".", "{2}", r"\d", "$"]
)


@given(st.lists(PIECES, max_size=6).map("".join), st.text("ab/.", max_size=6).map(str.encode))
def test_every_text_that_is_matched_begins_so(pattern: str, text: bytes) -> None:
    try:
        made = Regex(pattern)
    except ValueError:
        return
    assert not made.matches(text) or text.startswith(made.prefix)


@pytest.mark.parametrize(
    ("pattern", "by", "text", "expected"),
    [
        ("/v1/(.*)", r"/v2/\1", b"/v1/a/b", b"/v2/a/b"),
        ("a(b)?", r"[\1\0]", b"abxa", b"[bab]x[a]"),
        ("/", r"\\", b"/a/", b"\\a\\"),
        ("x*", "-", b"ab", b"-a-b-"),
        ("(a)(b)", r"\2\1", b"ababc", b"babac"),
        ("none", "x", b"abc", b"abc"),
    ],
)
def test_each_match_is_replaced(pattern: str, by: str, text: bytes, expected: bytes) -> None:
    made = regex(pattern)
    assert made.replace(text, Substitute(by, made.groups)) == expected


@pytest.mark.parametrize(("text", "why"), [(r"\2", "1 groups"), ("\\", "backslash"), (r"\x", "backslash")])
def test_a_text_to_put_in_place_makes_no_sense(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Substitute(text, 1)
