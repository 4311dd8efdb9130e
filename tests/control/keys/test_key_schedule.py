"""When keys are fetched, and that good ones stay good."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.l7.issuers import jwk, jwks
from ztunnel.control.keys.key_schedule import ASKED_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, KeySchedule
from ztunnel.control.keys.key_source import KeySource
from ztunnel.l7.jwt.jwks import parse_keys

A, B = KeySource("https://a/keys"), KeySource("https://b/keys")
FIRST = parse_keys(jwks(jwk("ES256")).encode())
SECOND = parse_keys(jwks(jwk("ES256", "k2"), {"kty": "oct", "k": "AA"}).encode())


def scheduled() -> KeySchedule:
    made = KeySchedule(Random(1))
    made.want({A: 5.0}, 0.0)
    return made


def test_what_is_wanted_is_fetched_at_once_and_every_twenty_minutes() -> None:
    it = scheduled()
    assert it.take_due(0.0) == {A: 5.0}
    assert (it.take_due(1000.0), it.next_at) == ({}, inf)
    assert it.succeed(A, FIRST, 1.0)
    assert it.text(A) == FIRST.text
    assert it.next_at == pytest.approx(1 + REFRESH_SECONDS, rel=0.11)
    assert not it.succeed(A, FIRST, 2.0)
    assert it.succeed(A, SECOND, 3.0)


def test_what_fails_is_tried_again_at_growing_distances() -> None:
    it, at, pauses = scheduled(), 0.0, []
    for _ in range(10):
        assert it.take_due(at) == {A: 5.0}
        it.fail(A, "refused", at)
        pauses.append(it.next_at - at)
        at = it.next_at
    expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert pauses == pytest.approx(expected, rel=0.101)
    assert RETRY_SECONDS == (1.0, 60.0)
    assert (it.failed, it.missing, it.text(A)) == (10, 1, "")


def test_an_issuer_that_is_away_costs_nobody_his_keys() -> None:
    it = scheduled()
    it.take_due(0.0)
    it.succeed(A, FIRST, 0.0)
    for at in (2000.0, 4000.0, 1e6):
        assert it.take_due(at)
        it.fail(A, "refused", at)
        assert it.text(A) == FIRST.text
    assert it.remarks == ("https://a/keys: keys cannot be fetched: refused; the last ones stay in force",)
    it.take_due(2e6)
    it.succeed(A, FIRST, 2e6)
    assert (it.remarks, it.next_at > 2e6 + 1000) == ((), True)


def test_the_operator_is_told_what_is_wrong() -> None:
    it = scheduled()
    it.take_due(0.0)
    it.fail(A, "refused", 0.0)
    assert it.remarks == ("https://a/keys: keys cannot be fetched: refused; until then no token is valid",)
    it.succeed(A, SECOND, 1.0)
    assert it.remarks == (
        "https://a/keys: keys[1] is not used: it is or holds a secret, which is none any more",
    )


def test_an_unknown_key_has_them_fetched_early_but_not_often() -> None:
    it = scheduled()
    it.take_due(0.0)
    assert not it.ask(A, 0.0)  # they are under way
    it.succeed(A, FIRST, 1.0)
    assert it.ask(A, 2.0)
    assert not it.ask(A, 3.0)  # it is heard already
    assert it.take_due(ASKED_SECONDS - 1) == {}
    assert it.take_due(ASKED_SECONDS) == {A: 5.0}
    it.succeed(A, FIRST, ASKED_SECONDS)
    assert it.ask(A, 3 * ASKED_SECONDS)
    assert it.take_due(3 * ASKED_SECONDS) == {A: 5.0}
    assert not it.ask(B, 1e9)


def test_an_operator_may_have_them_fetched_more_often() -> None:
    """istiod's PILOT_JWT_PUB_KEY_REFRESH_INTERVAL; an unknown key waits for no longer than that."""
    it = KeySchedule(Random(1), 10.0)
    it.want({A: 5.0}, 0.0)
    it.take_due(0.0)
    it.succeed(A, FIRST, 1.0)
    assert it.next_at == pytest.approx(11.0, rel=0.11)
    assert it.ask(A, 2.0)
    assert (it.take_due(9.9), it.next_at, it.take_due(10.0)) == ({}, 10.0, {A: 5.0})


def test_an_unknown_key_does_not_shorten_the_wait_after_a_failure() -> None:
    it = scheduled()
    it.take_due(0.0)
    it.fail(A, "refused", 0.0)
    assert not it.ask(A, 1e6)


def test_what_is_wanted_no_more_is_forgotten() -> None:
    it = scheduled()
    it.take_due(0.0)
    it.want({B: 1.0}, 0.0)
    assert not it.succeed(A, FIRST, 0.0)
    it.fail(A, "refused", 0.0)
    assert (it.text(A), len(it), it.take_due(0.0)) == ("", 1, {B: 1.0})
    it.want({A: 2.0, B: 1.0}, 5.0)
    assert it.take_due(5.0) == {A: 2.0}


class Schedule(RuleBasedStateMachine):
    """Whatever happens, each source is under way at most once, and keys that were there stay."""

    def __init__(self) -> None:
        super().__init__()
        self.it = KeySchedule(Random(1))
        self.now = 0.0
        self.under_way: set[KeySource] = set()
        self.had: set[KeySource] = set()
        self.wanted: set[KeySource] = set()

    @rule(wanted=st.sets(st.sampled_from((A, B))))
    def want(self, wanted: set[KeySource]) -> None:
        self.it.want(dict.fromkeys(wanted, 1.0), self.now)
        self.wanted = wanted
        self.had &= wanted
        self.under_way &= wanted

    @rule(seconds=st.floats(0, 5000))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = self.it.take_due(self.now)
        assert not due.keys() & self.under_way
        self.under_way |= due.keys()

    @rule(source=st.sampled_from((A, B)), good=st.booleans())
    def end(self, source: KeySource, good: bool) -> None:
        if good:
            self.it.succeed(source, FIRST, self.now)
            self.had |= {source} & self.wanted
        else:
            self.it.fail(source, "refused", self.now)
        self.under_way.discard(source)

    @rule(source=st.sampled_from((A, B)))
    def ask(self, source: KeySource) -> None:
        self.it.ask(source, self.now)

    @invariant()
    def keys_stay(self) -> None:
        assert {source for source in (A, B) if self.it.text(source)} == self.had
        assert self.it.missing == len(self.wanted - self.had)
        assert (self.it.next_at < inf) == bool(self.wanted - self.under_way)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=60, stateful_step_count=30)
