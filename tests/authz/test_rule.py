"""Rules: what matches what, by Istio's semantics."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import connection, match, policy
from ztunnel.authz.rule import clause_matches, matches, mismatch, rule_matches
from ztunnel.model.policy import Match

PLAIN = connection("10.0.0.1:4000", "10.0.1.1:8080")
CALL = connection("10.0.0.1:4000", "10.0.1.1:8080", "default/client")
YES, NO = match(destination_ports=[8080]), match(destination_ports=[1])


@pytest.mark.parametrize(
    ("conditions", "proved", "plain"),
    [
        ({"principals": ["cluster.local/ns/default/sa/client"]}, True, False),
        ({"principals": ["spiffe://cluster.local/ns/default/sa/client"]}, False, False),
        ({"principals": ["cluster.local/ns/default/sa/other", "*/sa/client"]}, True, False),
        ({"principals": ["cluster.local/ns/default/*"]}, True, False),
        ({"principals": ["other.domain/ns/default/*"]}, False, False),
        ({"principals": ["*"]}, True, False),
        ({"not_principals": ["*"]}, False, True),
        ({"not_principals": ["cluster.local/ns/default/sa/other"]}, True, True),
        ({"principals": ["*"], "not_principals": ["*/sa/client"]}, False, False),
        ({"namespaces": ["default"]}, True, False),
        ({"namespaces": ["*"]}, True, False),
        ({"not_namespaces": ["default"]}, False, True),
        ({"not_namespaces": ["other"]}, True, True),
        ({"service_accounts": ["default/client"]}, True, False),
        ({"service_accounts": ["other/client", "default/other"]}, False, False),
        ({"not_service_accounts": ["default/client"]}, False, True),
        ({"service_accounts": ["default/client"], "not_service_accounts": ["default/client"]}, False, False),
        ({"source_ips": ["10.0.0.0/24"]}, True, True),
        ({"source_ips": ["10.0.1.0/24", "10.0.0.1/32"]}, True, True),
        ({"source_ips": ["10.0.1.0/24"]}, False, False),
        ({"source_ips": ["::/0"]}, False, False),
        ({"not_source_ips": ["10.0.0.1/32"]}, False, False),
        ({"not_source_ips": ["::/0"]}, True, True),
        ({"source_ips": ["10.0.0.0/8"], "not_source_ips": ["10.0.0.0/24"]}, False, False),
        ({"destination_ips": ["10.0.1.1/32"]}, True, True),
        ({"not_destination_ips": ["10.0.1.0/24"]}, False, False),
        ({"destination_ports": [80, 8080]}, True, True),
        ({"destination_ports": [80]}, False, False),
        ({"not_destination_ports": [8080]}, False, False),
        ({"not_destination_ports": [80]}, True, True),
        ({"principals": ["*"], "destination_ports": [80]}, False, False),
        ({"principals": ["*"], "destination_ports": [8080]}, True, False),
        ({}, False, False),
    ],
)
def test_a_match_holds_where_all_its_fields_do(
    conditions: dict[str, Iterable[str | int]], proved: bool, plain: bool
) -> None:
    assert (mismatch(match(**conditions), CALL) == "") is proved
    assert (mismatch(match(**conditions), PLAIN) == "") is plain


def test_the_first_field_that_fails_is_named() -> None:
    cases: dict[str, list[str | int]] = {
        "principals": ["x"],
        "namespaces": ["x"],
        "service_accounts": ["x/y"],
        "source_ips": ["192.0.2.0/24"],
        "destination_ips": ["192.0.2.0/24"],
        "destination_ports": [1],
    }
    for field, value in cases.items():
        assert mismatch(match(**{field: value}), CALL) == field
    assert mismatch(Match(), CALL) == "(no condition)"


def test_matches_or_clauses_and_rules_or() -> None:
    assert clause_matches((NO, YES), CALL)
    assert not clause_matches((NO, NO), CALL)
    assert rule_matches(((YES,), (NO, YES)), CALL)
    assert not rule_matches(((YES,), (NO,)), CALL)
    assert matches(policy("p").rule([NO]).rule([YES]), CALL)
    assert not matches(policy("p").rule([NO]).rule([NO]), CALL)


def test_no_rules_match_nothing_and_a_rule_without_clauses_everything() -> None:
    assert not matches(policy("p"), CALL)
    assert matches(policy("p").rule(), CALL)
    assert matches(policy("p").rule([NO]).rule(), PLAIN)


def test_an_empty_clause_is_true_and_an_empty_match_is_not() -> None:
    assert clause_matches((), CALL)
    assert rule_matches(((), (YES,)), CALL)
    assert not clause_matches((Match(),), CALL)
    assert clause_matches((Match(), YES), CALL)


_text = st.text("ab/-", max_size=4)
_pattern = st.one_of(_text, _text.map("*{}".format), _text.map("{}*".format))


@given(st.lists(_pattern, max_size=3), st.lists(_pattern, max_size=3), st.text("ab-", min_size=1, max_size=4))
def test_strings_match_as_shell_patterns_do(positive: list[str], negative: list[str], account: str) -> None:
    principal = f"cluster.local/ns/default/sa/{account}"
    positive, negative = (
        [each if each[:1] == "*" else f"cluster.local/ns/default/sa/{each}" for each in side]
        for side in (positive, negative)
    )

    def meets(pattern: str) -> bool:
        return fnmatchcase(principal, pattern)

    expected = (not positive or any(map(meets, positive))) and not any(map(meets, negative))
    if positive or negative:
        call = connection("10.0.0.1", "10.0.1.1:80", principal)
        assert (mismatch(match(principals=positive, not_principals=negative), call) == "") is expected
