"""Base64url has one spelling."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.jwt.base64url import decode


@given(st.binary(max_size=200))
def test_what_is_encoded_is_decoded(octets: bytes) -> None:
    assert decode(urlsafe_b64encode(octets).rstrip(b"=")) == octets


@given(st.text("AQgwE-_", max_size=9).map(str.encode))
def test_nothing_has_two_spellings(text: bytes) -> None:
    try:
        octets = decode(text)
    except ValueError:
        return
    assert urlsafe_b64encode(octets).rstrip(b"=") == text


@pytest.mark.parametrize(
    "text", [b"A", b"AA==", b"AA=", b"AB", b"AAB", b"A A", b"AA\n", b"A+", b"A/", b"\xff"]
)
def test_what_is_no_base64url_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        decode(text)
