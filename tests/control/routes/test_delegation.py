"""A delegate's rules stand under the root's, or are left out (cases of istio/istio
pilot/pkg/model/virtualservice_test.go)."""

from dataclasses import replace

import pytest

from ztunnel.control.routes.delegation import merged
from ztunnel.model.route_action import Edits, HeaderEdits
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.state.virtual_match import RequestMatch, Sources
from ztunnel.state.virtual_service import RequestRule, Target, WeightedTarget

TARGETS = (WeightedTarget(Target("a")),)


def exact(text):
    return TextMatch(TextKind.EXACT, text)


def prefix(text):
    return TextMatch(TextKind.PREFIX, text)


def match(ignore_case=False, gateways=(), **said):
    return RequestMatch(Match(**said), Sources({}, "", gateways), ignore_case)


def header(name, text, negated=False):
    return FieldMatch(name, text, negated)


@pytest.mark.parametrize(
    ("root", "leaf", "expected"),
    [
        (match(path=prefix("/a")), match(path=prefix("/a/b")), match(path=prefix("/a/b"))),
        (match(path=prefix("/a")), match(path=exact("/a/b")), match(path=exact("/a/b"))),
        (match(path=prefix("/a/b")), match(path=prefix("/a")), None),
        (match(path=exact("/a")), match(path=exact("/a")), match(path=exact("/a"))),
        (match(path=exact("/a")), match(path=exact("/b")), None),
        (match(path=exact("/a")), match(path=prefix("/a")), None),
        (match(path=TextMatch(TextKind.REGEX, "a")), match(path=TextMatch(TextKind.REGEX, "a")), None),
        (match(path=prefix("/a")), match(method=exact("GET")), match(path=prefix("/a"), method=exact("GET"))),
        (match(path=TextMatch(TextKind.REGEX, "a")), match(method=exact("GET")),
         match(path=TextMatch(TextKind.REGEX, "a"), method=exact("GET"))),
        (match(path=prefix("/a")), match(True, path=prefix("/a")), None),
        (match(ports=(80,)), match(ports=(81,)), None),
        (match(ports=(80,)), match(name="l"), match(name="l", ports=(80,))),
        (match(name="r"), match(name="l"), match(name="r-l")),
        (match(gateways=("mesh",)), match(gateways=("edge",)), None),
        (match(headers=(header("a", exact("1")),)), match(headers=(header("a", exact("2")),)), None),
        (match(headers=(header("a", prefix("1")),)), match(headers=(header("a", exact("12")),)),
         match(headers=(header("a", exact("12")),))),
        (match(headers=(header("a", exact("1")),)), match(headers=(header("b", exact("2")),)),
         match(headers=(header("a", exact("1")), header("b", exact("2"))))),
        (match(query=(header("q", exact("1")),)), match(query=(header("q", exact("2")),)), None),
    ],
)  # fmt: skip
def test_a_match_of_the_delegate_stands_under_one_of_the_root(root, leaf, expected):
    found = merged(
        RequestRule(matches=(root,), delegate=("", "d")), RequestRule(matches=(leaf,), targets=TARGETS)
    )
    assert (found and found.matches) == ((expected,) if expected else None)


def test_where_one_of_the_matches_stands_under_none_the_rule_is_left_out():
    root = RequestRule(matches=(match(path=prefix("/a")), match(path=prefix("/b"))), delegate=("", "d"))
    leaf = RequestRule(matches=(match(path=prefix("/a/1")), match(path=prefix("/c"))), targets=TARGETS)
    assert merged(root, leaf) is None
    found = merged(root, replace(leaf, matches=leaf.matches[:1]))
    assert [one.match.path.text for one in found.matches] == ["/a/1"]


def test_what_the_delegate_says_counts_and_of_the_rest_the_roots():
    edits = Edits(HeaderEdits(("x",)))
    root = RequestRule("root", (match(path=prefix("/a")),), (), None, ("", "d"), timeout=3.0, edits=edits,
                       authority="root.example")  # fmt: skip
    found = merged(root, RequestRule("leaf", (), TARGETS))
    assert (found.name, found.matches, found.timeout, found.edits, found.authority) == (
        "root-leaf", root.matches, 3.0, edits, "root.example",
    )  # fmt: skip
    found = merged(root, RequestRule("", (), TARGETS, timeout=0.0, edits=Edits()))
    assert (found.name, found.timeout, found.edits, found.authority) == ("root", 0.0, Edits(), "")
    assert (found.targets, found.delegate) == (TARGETS, None)
