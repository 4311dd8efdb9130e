"""What tokens say of themselves, and what is said of them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.calling import PROXY, pod, status, token
from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.ca.token import (
    MAX_CHARACTERS,
    Claims,
    bearer,
    check_claims,
    hashed,
    read_claims,
    read_review,
    read_static_tokens,
)
from ztunnel.errors import ConfigError
from ztunnel.model.identity import SpiffeId

NOW = 1_000_000.0
ZTUNNEL = SpiffeId("cluster.local", "ztunnel-system", "ztunnel")


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_a_call_has_its_token_in_its_authorization(value):
    assert bearer({"authorization": value}) == "abc"


@pytest.mark.parametrize("metadata", [{}, {"authorization": ""}])
def test_a_call_may_have_no_token(metadata):
    assert bearer(metadata) == ""


@pytest.mark.parametrize(
    "value",
    [
        "Basic abc",
        "Bearer",
        "Bearer ",
        "abc",
        "Bearer a b",
        "Bearer \u00e4",
        "Bearer a\x00",
        "Bearer " + "a" * (1 << 20),
    ],
)
def test_an_authorization_of_another_kind_is_refused_without_being_quoted(value):
    with pytest.raises(Refused) as refusal:
        bearer({"authorization": value})
    assert refusal.value.reason is Reason.BAD_TOKEN
    assert len(str(refusal.value)) < 100


def test_a_token_says_for_whom_and_until_when_it_is():
    assert read_claims(token({"aud": ["a", "b"], "exp": 12})) == Claims(("a", "b"), 12.0)
    assert read_claims(token({"aud": "a"})) == Claims(("a",), None)
    assert read_claims(token({"exp": True, "aud": 7})) == Claims((), None)


@pytest.mark.parametrize(
    "text", ["abc", "a.b", "a.b.c.d", "a.!.c", ".e30.c", "a.e30.", token([]), token(7), "a.W1tb.c"]
)
def test_what_is_no_token_of_an_account_is_refused(text):
    with pytest.raises(Refused, match="no JSON Web Token") as refusal:
        read_claims(text)
    assert text not in str(refusal.value)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: token({"aud": str(raw)})))
def test_any_text_gives_claims_or_a_refusal(text):
    with suppress(Refused):
        read_claims(text)


def test_a_token_for_somebody_else_is_refused_by_both_names():
    with pytest.raises(Refused, match="the token is for vault, x; it has to be for istio-ca") as refusal:
        check_claims(Claims(("vault", "x"), None), ["istio-ca"], NOW)
    assert refusal.value.reason is Reason.WRONG_AUDIENCE
    check_claims(Claims(("vault", "istio-ca"), None), ["istio-ca"], NOW)


def test_an_expired_token_is_refused_when_no_clock_can_be_that_wrong():
    check_claims(Claims(("istio-ca",), NOW - 20), ["istio-ca"], NOW)
    with pytest.raises(Refused, match="expired 60 s ago") as refusal:
        check_claims(Claims(("istio-ca",), NOW - 60), ["istio-ca"], NOW)
    assert refusal.value.reason is Reason.EXPIRED_TOKEN


# --- a review -----------------------------------------------------------------------------


def test_a_review_says_account_pod_and_node():
    caller = read_review(status(), ["istio-ca"], "cluster.local")
    assert caller == Caller(ZTUNNEL, Proof.TOKEN, "ztunnel-1", "uid-ztunnel-1", "n1")


def test_a_token_may_be_bound_to_nothing():
    """As `kubectl create token` makes it, and API servers before 1.32 name no node."""
    found = status(user={"username": "system:serviceaccount:ztunnel-system:ztunnel"})
    assert read_review(found, ["istio-ca"], "cluster.local") == Caller(ZTUNNEL, Proof.TOKEN)


def user(name):
    return {"username": name}


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        ({}, Reason.BAD_TOKEN, "the API server does not know the token$"),
        ({"authenticated": "true"}, Reason.BAD_TOKEN, "does not know"),
        (status(authenticated=False, error="a\nb"), Reason.BAD_TOKEN, "does not know the token: a b"),
        (status(authenticated=False, error="token is expired"), Reason.EXPIRED_TOKEN, "token is expired"),
        (status(audiences=["x"]), Reason.WRONG_AUDIENCE, "does not say that the token is for istio-ca"),
        (status(audiences=[]), Reason.WRONG_AUDIENCE, "does not say"),
        (status(audiences=None), Reason.WRONG_AUDIENCE, "does not say"),
        (status(user=user("system:node:n1")), Reason.NO_ACCOUNT, "of 'system:node:n1'"),
        (status(user=user("system:serviceaccount:x")), Reason.NO_ACCOUNT, "no service account"),
        (status(user=user("system:serviceaccount::x")), Reason.NO_ACCOUNT, "no service account"),
        (status(user=user("system:serviceaccount:a:b/c")), Reason.NO_ACCOUNT, "not a service account"),
        (status(user=None), Reason.NO_ACCOUNT, "of ''"),
    ],
)  # fmt: skip
def test_a_review_that_says_no_is_a_refusal(found, reason, message):
    with pytest.raises(Refused, match=message) as refusal:
        read_review(found, ["istio-ca"], "cluster.local")
    assert refusal.value.reason is reason


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["username", "extra", "a"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_review_of_any_shape_gives_a_caller_or_a_refusal(value):
    with suppress(Refused):
        read_review(status(user=value, audiences=value), ["istio-ca"], "cluster.local")
    with suppress(Refused):
        read_review(status(user=value), ["istio-ca"], "cluster.local")


# --- a file -------------------------------------------------------------------------------

SECRET = "0123456789abcdef"


def read(text):
    return read_static_tokens(text, "tokens.csv", "cluster.local", "ztunnel-system/ztunnel")


def test_a_file_names_accounts_and_node_proxies():
    found = read(
        f'# comment\n{SECRET}1,system:serviceaccount:shop:web,7,"a,b"\n\n{SECRET}2, system:node:node-1 ,8\n'
    )
    assert found == {
        hashed(f"{SECRET}1"): Caller(SpiffeId("cluster.local", "shop", "web"), Proof.STATIC_TOKEN),
        hashed(f"{SECRET}2"): Caller(ZTUNNEL, Proof.STATIC_TOKEN, node="node-1"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SECRET},system:node:n1", "tokens.csv:2: 2 fields"),
        ("short,system:node:n1,1", "tokens.csv:2: a token has 16 or more"),
        (f"{SECRET},admin,1", "the user 'admin' is neither"),
        (f"{SECRET},system:node:,1", "is neither"),
        (f"{SECRET},system:serviceaccount:a,1", "is neither"),
        (f"{SECRET},system:serviceaccount:a:b/c,1", "not a service account"),
        ("x" * (MAX_CHARACTERS + 1) + ",system:node:n1,1", "a token has"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_its_token_is_not(line, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        read(f"# first\n{line}\n")
    assert SECRET not in str(refusal.value)


def test_all_lines_that_are_wrong_are_named_at_once():
    with pytest.raises(ConfigError) as refusal:
        read(f"a,b\n{SECRET},x,1\n{SECRET}3,system:node:a,1\n{SECRET}3,system:node:b,1\n")
    assert [fault.line for fault in refusal.value.faults] == [1, 2, 4]


def test_the_pod_of_these_tests_is_one():
    assert pod("ztunnel-1", "ztunnel", "n1", "ztunnel-system") == PROXY
