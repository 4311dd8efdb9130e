"""Tokens are read in Envoy's order, and refused in its words."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.issuers import ISSUER, NOW, b64, claims, part, token
from ztunnel.l7.jwt.token import MAX_BYTES, SKEW_SECONDS, BadToken, Token, Wrong


def wrong(untrusted: bytes) -> Wrong:
    with pytest.raises(BadToken) as caught:
        Token(untrusted)
    return caught.value.wrong


def test_a_token_is_read() -> None:
    text = token(claims(aud=["a", "b"], nbf=NOW - 5))
    found = Token(text)
    assert (found.algorithm, found.kid, found.issuer, found.audiences) == ("ES256", "k1", ISSUER, ("a", "b"))
    assert (found.not_before, found.expires, found.text) == (NOW - 5, NOW + 600, text)
    assert found.signed + b"." + b64(found.signature) == text
    assert found.payload_text == text.split(b".")[1]


def test_a_token_needs_no_more_than_its_header() -> None:
    found = Token(token({}, kid=""))
    assert (found.kid, found.issuer, found.audiences, found.not_before, found.expires) == ("", "", (), 0, inf)


GOOD, CLAIMS, SIGNED = part({"alg": "ES256"}), part(claims()), b64(b"x" * 64)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", Wrong.BAD_FORMAT),
        (b".", Wrong.BAD_FORMAT),
        (b"..", Wrong.BAD_FORMAT),
        (b"a.b", Wrong.BAD_FORMAT),
        (b"a.b.c.d", Wrong.BAD_FORMAT),
        (b"a.b.c.d.e", Wrong.BAD_FORMAT),
        (GOOD + b"." + CLAIMS + b".", Wrong.BAD_FORMAT),
        (b"." + CLAIMS + b"." + SIGNED, Wrong.BAD_FORMAT),
        (b"x" * (MAX_BYTES + 1), Wrong.TOO_LARGE),
        (b"a." + CLAIMS + b"." + SIGNED, Wrong.HEADER_BASE64),
        (GOOD + b"==." + CLAIMS + b"." + SIGNED, Wrong.HEADER_BASE64),
        (b" " + GOOD + b"." + CLAIMS + b"." + SIGNED, Wrong.HEADER_BASE64),
        (GOOD + b"\n." + CLAIMS + b"." + SIGNED, Wrong.HEADER_BASE64),
        (GOOD + b"." + CLAIMS + b"=." + SIGNED, Wrong.PAYLOAD_BASE64),
        (GOOD + b"." + CLAIMS + b"." + SIGNED + b"=", Wrong.SIGNATURE_BASE64),
        (GOOD + b"." + CLAIMS + b"." + SIGNED + b" ", Wrong.SIGNATURE_BASE64),
        (GOOD + b"." + CLAIMS + b".+/+/", Wrong.SIGNATURE_BASE64),
        ("é.é.é".encode(), Wrong.HEADER_BASE64),
    ],
)
def test_what_has_not_the_form_is_refused(text: bytes, reason: Wrong) -> None:
    assert wrong(text) is reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"[]", Wrong.HEADER_JSON),
        (b"{", Wrong.HEADER_JSON),
        (b'{"alg":"ES256","alg":"none"}', Wrong.HEADER_JSON),
        (b'{"alg":"ES256","x":"\xff"}', Wrong.HEADER_JSON),
        (b'{"alg":"ES256","x":' + b"[" * 3000 + b"]" * 3000 + b"}", Wrong.HEADER_JSON),
        (b"{}", Wrong.HEADER_ALG),
        (b'{"alg":null}', Wrong.HEADER_ALG),
        (b'{"alg":["ES256"]}', Wrong.HEADER_ALG),
        *((json.dumps({"alg": alg}).encode(), Wrong.HEADER_ALG_UNKNOWN) for alg in (
            "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "es256", "ES256 ", "ES256K", "RS1",
            "ECDH-ES", "dir",
        )),
        (b'{"alg":"ES256","kid":7}', Wrong.HEADER_KID),
        (b'{"alg":"ES256","kid":null}', Wrong.HEADER_KID),
        (b'{"alg":"ES256","kid":["k1"]}', Wrong.HEADER_KID),
        (b'{"alg":"ES256","crit":["b64"],"b64":false}', Wrong.HEADER_CRIT),
        (b'{"alg":"ES256","crit":["exp"],"exp":1}', Wrong.HEADER_CRIT),
        (b'{"alg":"ES256","crit":[]}', Wrong.HEADER_CRIT),
        (b'{"alg":"ES256","crit":null}', Wrong.HEADER_CRIT),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(header: bytes, reason: Wrong) -> None:
    assert wrong(token(header=header)) is reason


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[]", Wrong.PAYLOAD_JSON),
        (b"null", Wrong.PAYLOAD_JSON),
        (b"text", Wrong.PAYLOAD_JSON),
        (b'{"sub":"a","sub":"b"}', Wrong.PAYLOAD_JSON),
        (b'{"sub":"\xc3"}', Wrong.PAYLOAD_JSON),
        (b'{"exp":NaN}', Wrong.PAYLOAD_JSON),
        (b'{"exp":1e999}', Wrong.PAYLOAD_JSON),
        ({"iss": 1}, Wrong.ISS),
        ({"iss": None}, Wrong.ISS),
        ({"iss": ["a"]}, Wrong.ISS),
        ({"sub": 1}, Wrong.SUB),
        ({"iat": "1"}, Wrong.IAT),
        ({"iat": -1}, Wrong.IAT_RANGE),
        ({"nbf": True}, Wrong.NBF),
        ({"nbf": 1 << 63}, Wrong.NBF_RANGE),
        ({"exp": "1700000000"}, Wrong.EXP),
        ({"exp": None}, Wrong.EXP),
        ({"exp": []}, Wrong.EXP),
        ({"exp": -1}, Wrong.EXP_RANGE),
        ({"exp": 1e30}, Wrong.EXP_RANGE),
        ({"exp": 10**400}, Wrong.EXP_RANGE),
        ({"jti": 1}, Wrong.JTI),
        ({"aud": 1}, Wrong.AUD),
        ({"aud": None}, Wrong.AUD),
        ({"aud": {"a": "b"}}, Wrong.AUD),
        ({"aud": ["a", 1]}, Wrong.AUD),
    ],
)
def test_a_payload_that_is_none_is_refused(payload: Any, reason: Wrong) -> None:
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    assert wrong(token(text)) is reason


@pytest.mark.parametrize(
    ("payload", "now", "reason"),
    [
        ({"exp": NOW}, NOW + SKEW_SECONDS, None),
        ({"exp": NOW}, NOW + SKEW_SECONDS + 1, Wrong.EXPIRED),
        ({"exp": NOW + 0.5}, NOW + SKEW_SECONDS + 0.25, None),
        ({"exp": 0}, NOW, Wrong.EXPIRED),
        ({}, NOW * 100, None),
        ({"nbf": NOW}, NOW - SKEW_SECONDS, None),
        ({"nbf": NOW}, NOW - SKEW_SECONDS - 1, Wrong.NOT_YET),
        ({"iat": NOW * 2}, NOW, None),
        ({"nbf": NOW * 3, "exp": NOW / 3}, NOW, Wrong.NOT_YET),
    ],
)
def test_a_token_has_its_time(payload: dict[str, float], now: float, reason: Wrong | None) -> None:
    found = Token(token(json.dumps(payload).encode()))
    if reason is None:
        found.check_time(now)
        return
    with pytest.raises(BadToken) as caught:
        found.check_time(now)
    assert caught.value.wrong is reason


@given(
    st.binary(max_size=60) | st.lists(st.binary(max_size=30).map(b64), min_size=3, max_size=3).map(b".".join)
)
def test_garbage_raises_nothing_else(untrusted: bytes) -> None:
    with pytest.raises(BadToken):
        Token(untrusted)


@given(st.data())
def test_a_changed_byte_is_refused_or_another_token(data: st.DataObject) -> None:
    text = bytearray(token(algorithm="EdDSA"))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    try:
        found = Token(bytes(text))
    except BadToken:
        return
    assert found.signed + b"." + b64(found.signature) == bytes(text)
