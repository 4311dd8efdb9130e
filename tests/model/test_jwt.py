"""Rules say nothing that they were not told."""

from __future__ import annotations

from ztunnel.model.jwt import JwtRule, TokenHeader


def test_a_rule_of_an_issuer_alone() -> None:
    it = JwtRule("https://issuer.example")
    assert (it.keys, it.keys_url, it.headers, it.params, it.cookies) == ("", "", (), (), ())
    assert (it.forward, it.timeout_seconds, it.claim_headers) == (False, 5.0, ())


def test_a_header_may_have_nothing_before_the_token() -> None:
    assert TokenHeader("x-jwt").prefix == ""
