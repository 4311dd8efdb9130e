"""Who calls, in words, and which refusals say that nobody knows who that is."""

from __future__ import annotations

import pytest

from ztunnel.ca.caller import UNAUTHENTICATED, Caller, Proof, Reason, Refused, code_of, identity_of
from ztunnel.model.identity import SpiffeId
from ztunnel.rpc.status import Code

WEB = SpiffeId("cluster.local", "shop", "web")


@pytest.mark.parametrize(
    ("caller", "text"),
    [
        (Caller(WEB, Proof.TOKEN, "web-0", "u", "n1"), "shop/web (pod shop/web-0)"),
        (Caller(WEB, Proof.STATIC_TOKEN, node="n1"), "shop/web (node n1)"),
        (Caller(WEB, Proof.CERTIFICATE), "shop/web"),
    ],
)
def test_a_caller_is_named_by_its_account_and_its_place(caller, text):
    assert str(caller) == text


def test_an_account_has_an_identity():
    assert identity_of("cluster.local", "shop", "web") == WEB


@pytest.mark.parametrize("names", [("shop", "we b"), ("", "web"), ("shop", "a/b"), ("..", "web")])
def test_names_that_no_account_has_are_refused(names):
    with pytest.raises(Refused, match="not a service account") as refusal:
        identity_of("cluster.local", *names)
    assert refusal.value.reason is Reason.NO_ACCOUNT


def test_who_may_not_is_not_told_that_nobody_knows_it():
    assert Reason.OTHER_NODE not in UNAUTHENTICATED
    assert Reason.WRONG_AUDIENCE in UNAUTHENTICATED


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.BAD_TOKEN, Code.UNAUTHENTICATED),
        (Reason.API_UNAVAILABLE, Code.UNAVAILABLE),
        (Reason.OTHER_NODE, Code.PERMISSION_DENIED),
        (Reason.TOO_MANY, Code.RESOURCE_EXHAUSTED),
    ],
)
def test_each_reason_has_the_status_that_tells_a_client_what_to_do(reason, code):
    assert code_of(reason) is code
