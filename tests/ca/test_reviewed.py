"""How long an answer of the API server holds, and who may have it asked."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.ca.reviewed import Reviewed
from ztunnel.model.identity import SpiffeId

CALLER = Caller(SpiffeId("cluster.local", "shop", "web"), Proof.TOKEN)
HERE, THERE = ip_address("10.0.0.1"), ip_address("fd00::1")
BAD = Refused(Reason.BAD_TOKEN, "unknown")


@pytest.fixture
def reviewed():
    return Reviewed(100.0)


def test_a_token_that_is_known_needs_no_question_for_ten_seconds(reviewed):
    reviewed.remember(b"a", CALLER, None, 100.0)
    assert reviewed.recall(b"a", 109.9) == CALLER
    assert reviewed.recall(b"a", 110.0) is None
    assert reviewed.recall(b"b", 100.0) is None


def test_in_an_outage_it_is_known_for_five_minutes(reviewed):
    reviewed.remember(b"a", CALLER, None, 100.0)
    assert reviewed.recall_in_outage(b"a", 399.9) == CALLER
    assert reviewed.recall_in_outage(b"a", 400.0) is None


def test_it_is_known_no_longer_than_it_is_valid(reviewed):
    reviewed.remember(b"a", CALLER, 3.0, 100.0)
    assert reviewed.recall(b"a", 102.9) == CALLER
    assert reviewed.recall(b"a", 103.0) is None
    assert reviewed.recall_in_outage(b"a", 103.0) is None


def test_a_token_that_is_not_known_is_refused_for_some_seconds(reviewed):
    reviewed.refuse(b"a", BAD, HERE, 100.0)
    with pytest.raises(Refused, match="unknown") as refusal:
        reviewed.recall(b"a", 104.9)
    assert refusal.value.reason is Reason.BAD_TOKEN
    assert reviewed.recall(b"a", 105.0) is None
    assert reviewed.recall_in_outage(b"a", 101.0) is None


def test_who_sends_garbage_is_refused_without_a_question_and_others_are_not(reviewed):
    for number in range(20):
        reviewed.admit(HERE, 100.0)
        reviewed.refuse(str(number).encode(), BAD, HERE, 100.0)
    with pytest.raises(Refused, match=r"too many tokens from 10\.0\.0\.1") as refusal:
        reviewed.admit(HERE, 100.0)
    assert refusal.value.reason is Reason.TOO_MANY
    reviewed.admit(THERE, 100.0)
    reviewed.admit(HERE, 100.5)


def test_good_tokens_of_one_address_cost_it_nothing(reviewed):
    for number in range(100):
        reviewed.admit(HERE, 100.0)
        reviewed.remember(str(number).encode(), CALLER, None, 100.0)
    reviewed.admit(HERE, 100.0)


def test_all_questions_together_are_bounded(reviewed):
    for number in range(1000):
        reviewed.admit(ip_address(number), 100.0)
    with pytest.raises(Refused, match="too many tokens are to be checked"):
        reviewed.admit(ip_address(9999), 100.0)
    reviewed.admit(ip_address(9999), 100.1)


def test_what_is_remembered_is_bounded_and_drops_the_oldest(reviewed):
    for number in range(4097):
        reviewed.remember(number.to_bytes(2, "big"), CALLER, None, 100.0)
    assert reviewed.recall((0).to_bytes(2, "big"), 100.0) is None
    assert reviewed.recall((1).to_bytes(2, "big"), 100.0) == CALLER
