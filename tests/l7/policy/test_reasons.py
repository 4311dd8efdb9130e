"""Why a policy matches or does not; and that it says what is decided."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.policy.test_authorization import (
    asked,
    connection,
    operation,
    policies,
    rules,
    segments,
    source,
    when,
)
from ztunnel.l7.policy.authorization import Authorization
from ztunnel.l7.policy.reasons import explain_policy

PUT = "{operation: {methods: [PUT]}}"
HOST_X, HOST_Y = "{operation: {hosts: [x]}}", "{operation: {hosts: [y]}}"


def explained(spec, request=None, http=True):
    (policy,) = policies(spec).values()
    return explain_policy(policy, connection(), (request or asked()) if http else None)


@pytest.mark.parametrize(
    ("spec", "matches", "why"),
    [
        ("{}", False, "it has no rules"),
        ("rules: [{}]", True, "rule 1 has no conditions"),
        (f"rules: [{operation('methods: [PUT]')}, {operation('methods: [GET]')}]", True, "rule 2 matches"),
        (f"rules: [{operation('methods: [GET], paths: [/b]')}]", False, "rule 1: paths"),
        (f"rules: [{source('namespaces: [x]')}]", False, "rule 1: source.namespace"),
        (
            f"rules: [{{to: [{PUT}, {HOST_X}, {HOST_Y}]}}]",
            False,
            "rule 1: methods or hosts",
        ),
        (f"rules: [{when('request.headers[X-A]', 'values: [b]')}]", False, "rule 1: request.headers[x-a]"),
        (
            f"rules: [{when('request.auth.claims[a][b]', 'values: [c]')}]",
            False,
            "rule 1: request.auth.claims[a][b]",
        ),
        (
            f"rules: [{when('request.auth.audiences', 'values: [c]')}]",
            False,
            "rule 1: request.auth.audiences",
        ),
        (
            f"rules: [{', '.join([operation('methods: [PUT]')] * 7)}]",
            False,
            "; ".join([*(f"rule {n}: methods" for n in range(1, 6)), "2 more"]),
        ),
    ],
)
def test_the_rule_that_matches_or_what_keeps_each_from_it(spec, matches, why):
    assert explained(spec) == (matches, why)


def test_without_http_deny_is_by_the_rest_and_allow_never():
    rule = f"rules: [{operation('methods: [GET]')}]"
    assert explained(rule, http=False) == (False, "rule 1: needs HTTP, and this is none")
    assert explained(f"{{action: DENY, {rule}}}", http=False) == (True, "rule 1 matches")


@given(st.lists(rules, max_size=4), segments.map("/{}".format))
def test_it_says_what_is_decided(written, path):
    (policy,) = policies(yaml.safe_dump({"rules": written})).values()
    request = asked(f"GET web {path}")
    matches, _ = explain_policy(policy, connection(), request)
    decision = Authorization({policy.key: policy}, [policy.key]).judge(connection()).decide(request)
    assert matches is decision.allowed
