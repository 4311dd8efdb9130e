"""What rules are found by, and what is left of them; that this changes no decision is in
test_authorization.py."""

import pytest

from tests.builders import connection
from ztunnel.l7.policy.rule import CompiledRule, Decision, caller_keys, matched, segment_of
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch

IDENTITY = "td/ns/shop/sa/front"


def texts(attribute, *written, kind=TextKind.EXACT):
    return Term(attribute, tuple(TextMatch(kind, text) for text in written))


def compiled(*clauses, action=HttpAction.DENY):
    return CompiledRule(HttpPolicy("p", "shop", action, ((), tuple(clauses))), 1)


def left(rule, http=True):
    return rule.rest(connection("10.0.0.1:1", "10.0.0.2:80", IDENTITY), "", http)


def test_a_rule_is_named_as_istiod_names_it():
    rule = compiled()
    assert rule.name == "ns[shop]-policy[p]-rule[1]"
    assert rule.decision == Decision(False, "shop/p", 1, matched(rule.name))
    assert compiled(action=HttpAction.ALLOW).decision.allowed


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ([], None),
        ([()], None),
        ([((texts(Attribute.PRINCIPAL, "a", "b"),),)], {"source.principal a", "source.principal b"}),
        ([((texts(Attribute.PRINCIPAL, "a"),), (texts(Attribute.METHOD, "GET"),))], None),
        (
            [((texts(Attribute.PRINCIPAL, "a"),), (texts(Attribute.NAMESPACE, "n"),))],
            {"source.principal a", "source.namespace n"},
        ),
        ([((texts(Attribute.PRINCIPAL, "a", kind=TextKind.PREFIX),),)], None),
        ([((texts(Attribute.PATH, "/"),),), ((texts(Attribute.NAMESPACE, "n"),),)], {"source.namespace n"}),
    ],
)
def test_callers_are_those_that_every_match_of_a_clause_names(clauses, expected):
    assert compiled(*clauses).callers == expected


def test_a_caller_is_known_by_all_its_names():
    of = connection("10.0.0.1:1", "10.0.0.2:80", IDENTITY)
    assert caller_keys(of) == (
        "source.principal td/ns/shop/sa/front", "source.namespace shop", "source.serviceAccount shop/front",
    )  # fmt: skip
    assert caller_keys(connection("10.0.0.1:1", "10.0.0.2:80")) == ()


@pytest.mark.parametrize(
    ("term", "segments"),
    [
        (texts(Attribute.PATH, "/a/b", "/c", "/"), {"a", "c", ""}),
        (texts(Attribute.PATH, "/a/", "/b/c", kind=TextKind.PREFIX), {"a", "b"}),
        (texts(Attribute.PATH, "/a", kind=TextKind.PREFIX), None),  # /ab as well
        (texts(Attribute.PATH, "/a", kind=TextKind.SUFFIX), None),
        (texts(Attribute.PATH, "/a/{*}", kind=TextKind.TEMPLATE), None),
        (texts(Attribute.METHOD, "/a"), None),
        (Term(Attribute.PATH, (), (TextMatch(TextKind.EXACT, "/a"),)), None),
    ],
)
def test_segments_are_those_that_paths_can_begin_with(term, segments):
    assert left(compiled(((term,),))).segments == segments


@pytest.mark.parametrize(("path", "segment"), [("/", ""), ("/a", "a"), ("/a/b", "a"), ("//a", ""), ("*", "")])
def test_the_first_segment(path, segment):
    assert segment_of(path) == segment


def test_what_a_connection_does_not_meet_is_left_out():
    mine, others = texts(Attribute.NAMESPACE, "shop"), texts(Attribute.NAMESPACE, "other")
    get = texts(Attribute.METHOD, "GET")
    assert left(compiled(((others,),))) is None
    assert left(compiled(((others, get),))) is None
    assert left(compiled(((mine,),))).match(None)
    assert not left(compiled(((mine, get),))).match(None)
    assert left(compiled(((others,), (mine, get)))).match(None) is False
    assert left(compiled(((mine, get),)), http=False).match(None)
    assert left(compiled(((mine, get),), action=HttpAction.ALLOW), http=False) is None


def test_a_rule_that_no_connection_decides_is_left_as_it_is():
    rule = compiled(((texts(Attribute.METHOD, "GET"),),))
    assert left(rule) is left(rule)
