"""Comparisons with texts, and what is known of them before."""

import re
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.policy.texts import Blocks, Principals, Texts, compile_template
from ztunnel.model.http_policy import TextKind, TextMatch

short = st.text("ab/*", max_size=5)


def one(kind, text=""):
    return Texts([TextMatch(kind, text)])


@given(short, short)
def test_each_kind_is_what_it_is_called(written, text):
    assert one(TextKind.EXACT, written).match(text) is (written == text)
    assert one(TextKind.PREFIX, written).match(text) is text.startswith(written)
    assert one(TextKind.SUFFIX, written).match(text) is text.endswith(written)
    assert one(TextKind.PRESENCE).match(text) is bool(text)
    pattern = ".*".join(map(re.escape, written.split("*")))
    if "*" in written:
        assert one(TextKind.WILDCARD, written).match(text) is bool(re.fullmatch(pattern, text, re.DOTALL))


plain = st.sampled_from([kind for kind in TextKind if kind is not TextKind.REGEX])
patterns = st.sampled_from(["a.*", "(a|b)+", ""]).map(partial(TextMatch, TextKind.REGEX))


@given(st.lists(st.builds(TextMatch, plain, short) | patterns, max_size=4), short)
def test_of_several_any_has_to_match(values, text):
    assert Texts(values).match(text) is any(Texts([value]).match(text) for value in values)


@given(st.sampled_from(["a.*", "(a|b)+", "[^/]*/?"]), short)
def test_a_pattern_matches_the_whole_text(pattern, text):
    assert one(TextKind.REGEX, pattern).match(text) is bool(re.fullmatch(pattern, text))


def test_bytes_that_are_no_text_match_no_pattern():
    assert not one(TextKind.REGEX, "a.*").match("a\udcff")


def test_nothing_matches_nothing():
    assert not Texts(()).match("")


@pytest.mark.parametrize(
    ("kinds", "anchored", "only_exact"),
    [
        ([TextKind.EXACT], True, True),
        ([TextKind.EXACT, TextKind.PREFIX], True, False),
        ([TextKind.EXACT, TextKind.SUFFIX], False, False),
        ([TextKind.PRESENCE], False, False),
        ([TextKind.TEMPLATE], False, False),
        ([TextKind.WILDCARD], False, False),
    ],
)
def test_what_can_be_told_beforehand(kinds, anchored, only_exact):
    found = Texts(TextMatch(kind, "a") for kind in kinds)
    assert (found.anchored, found.only_exact) == (anchored, only_exact)


def test_case_counts_unless_it_is_folded():
    assert not one(TextKind.EXACT, "Web").match("web")
    assert Texts([TextMatch(TextKind.PREFIX, "WE")], fold=True).match("web")


def test_a_template_takes_a_line_break_for_a_character_like_any_other():
    assert compile_template("/a/{**}").fullmatch("/a/b\nc")
    assert compile_template("/a.b/{*}").fullmatch("/a.b/c")
    assert not compile_template("/a.b/{*}").fullmatch("/axb/c")


def test_ranges():
    found = Blocks([IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")])
    for text, expected in (("10.1.2.3", True), ("fd12::", True), ("11.0.0.1", False), ("fe80::1", False)):
        assert found.match(ip_address(text)) is expected
    assert not found.match(None)


@pytest.mark.parametrize(
    ("kind", "text", "matching", "others"),
    [
        (TextKind.EXACT, "i/s", [("i", "s")], [("i", "t"), ("", ""), ("i/s", "")]),
        (TextKind.EXACT, "https://i/s", [("https://i", "s")], [("https:", "/i/s")]),
        (TextKind.EXACT, "i", [], [("i", ""), ("", "i"), ("i", "s")]),
        (TextKind.PRESENCE, "", [("i", "s")], [("i", ""), ("", "s"), ("", "")]),
        (TextKind.PREFIX, "i/", [("i", "s"), ("i", "a/b")], [("i/x", "s"), ("i", "")]),
        (TextKind.PREFIX, "i/s", [("i", "st")], [("i", "t")]),
        (TextKind.PREFIX, "i", [("i", "s"), ("ij", "s")], [("j", "s"), ("i", "")]),
        (TextKind.SUFFIX, "/s", [("i", "s")], [("i", "as"), ("", "s")]),
        (TextKind.SUFFIX, "i/s", [("hi", "s")], [("hi", "as"), ("x", "s")]),
        (TextKind.SUFFIX, "s", [("i", "as")], [("i", "at"), ("", "s")]),
    ],
)
def test_principals_of_tokens(kind, text, matching, others):
    found = Principals([TextMatch(kind, text)])
    assert all(found.match(*each) for each in matching)
    assert not any(found.match(*each) for each in others)
