"""Signatures are checked once, and what is kept of them is bounded."""

from __future__ import annotations

import pytest

from tests.l7.issuers import claims, jwk, jwks, key_of, token
from ztunnel.l7.jwt.jwks import NO_KEYS, parse_keys
from ztunnel.l7.jwt.proofs import MAX_PROVED, MAX_PROVED_BYTES, MAX_REFUTED, MAX_TRIED, Proofs, prove
from ztunnel.l7.jwt.token import MAX_BYTES, Token, Wrong

KEYS = parse_keys(jwks(jwk("ES256"), jwk("RS256", "rsa"), jwk("EdDSA", "ed")).encode())
OTHERS = parse_keys(jwks(jwk("ES256", "k2")).encode())


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (token(), None),
        (token(algorithm="RS512", kid="rsa"), None),
        (token(algorithm="EdDSA", kid="ed"), None),
        (token(header={"kid": None}), None),
        (token(kid="ed"), Wrong.NO_KEY),
        (token(kid="unknown"), Wrong.NO_KEY),
        (token(algorithm="ES384"), Wrong.NO_KEY),
        (token(algorithm="RS256", kid="k1"), Wrong.NO_KEY),
        (token(algorithm="EdDSA", kid="rsa"), Wrong.NO_KEY),
        (token()[:-4] + b"AAAA", Wrong.UNPROVED),
        (token(kid="k2", header={"kid": None}), Wrong.UNPROVED),
    ],
)
def test_a_token_is_proved_by_the_key_of_its_kid_and_algorithm(text: bytes, wrong: Wrong | None) -> None:
    assert prove(KEYS, Token(text)) is wrong


def test_without_keys_nothing_is_proved() -> None:
    assert prove(NO_KEYS, Token(token())) is Wrong.NO_KEYS


def test_a_key_without_a_name_may_be_any() -> None:
    nameless = {name: value for name, value in jwk("ES256").items() if name != "kid"}
    assert prove(parse_keys(jwks(nameless).encode()), Token(token(kid="k1"))) is None


def test_a_token_without_a_name_costs_a_few_keys_at_most() -> None:
    many = parse_keys(jwks(*(jwk("ES256", f"k{n}") for n in range(1, MAX_TRIED + 2))).encode())
    tried = token(kid=f"k{MAX_TRIED}", header={"kid": None})
    not_tried = token(kid=f"k{MAX_TRIED + 1}", header={"kid": None})
    assert (prove(many, Token(tried)), prove(many, Token(not_tried))) == (None, Wrong.UNPROVED)


def test_what_was_checked_is_known() -> None:
    known, text = Proofs(), token()
    assert known.find(KEYS, text) is None
    read = Token(text)
    known.check(KEYS, read)
    assert known.find(KEYS, text) is read
    assert known.find(OTHERS, text) is None
    known.check(OTHERS, read)
    assert known.find(OTHERS, text) is Wrong.NO_KEY
    assert (known.proved, known.refuted, known.remembered, len(known)) == (1, 1, 2, 1)


def test_what_is_no_longer_valid_is_forgotten() -> None:
    known, read = Proofs(), Token(token())
    known.check(KEYS, read)
    known.forget(KEYS, read)
    known.forget(KEYS, read)
    assert (known.find(KEYS, read.text), len(known)) == (None, 0)


def numbered(n: int, size: int = 0) -> Token:
    """One of many that are all proved: what is checked is not what is tested here."""
    return Token(token(claims(jti=f"{n}" + "x" * size), "EdDSA", "ed"))


def test_bad_tokens_push_out_no_good_ones() -> None:
    known, good = Proofs(), Token(token())
    known.check(KEYS, good)
    bad = [token(claims(jti=str(n)), "EdDSA", "?", key=key_of("EdDSA")) for n in range(MAX_REFUTED + 1)]
    for each in bad:
        known.check(KEYS, Token(each))
    assert known.find(KEYS, good.text) is good
    assert (known.find(KEYS, bad[0]), known.find(KEYS, bad[-1])) == (None, Wrong.NO_KEY)


def test_the_least_recently_used_is_forgotten_first() -> None:
    size = MAX_BYTES * 3 // 4 - 500
    known, first, second = Proofs(), numbered(1, size), numbered(2, size)
    known.check(KEYS, first)
    known.check(KEYS, second)
    known.find(KEYS, first.text)
    count = MAX_PROVED_BYTES // len(first.text)
    for n in range(3, count + 2):
        known.check(KEYS, numbered(n, size))
    assert count < MAX_PROVED
    assert known.find(KEYS, first.text) is first
    assert known.find(KEYS, second.text) is None
    assert len(known) == count


def test_the_number_is_bounded_too() -> None:
    known, made = Proofs(most=2), [numbered(n) for n in range(3)]
    for each in made:
        known.check(KEYS, each)
    assert [known.find(KEYS, each.text) for each in made] == [None, made[1], made[2]]
