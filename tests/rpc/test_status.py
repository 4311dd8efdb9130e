"""Statuses, and how they travel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.rpc.status import (
    Code,
    RpcError,
    decode_message,
    encode_message,
    from_http,
    from_reset,
    parse_code,
)


@given(st.text(max_size=200))
def test_a_message_comes_back_as_it_was(text: str) -> None:
    surely = text.encode("utf-8", "replace").decode()
    encoded = encode_message(text)
    assert encoded.isascii()
    assert encoded.isprintable() or not encoded
    assert decode_message(encoded) == surely


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_what_is_wrongly_encoded_never_fails(untrusted: str) -> None:
    decode_message(untrusted)


def test_what_is_wrongly_encoded_stays() -> None:
    assert decode_message("100% of %zz and %41") == "100% of %zz and A"


def test_a_long_message_is_cut() -> None:
    assert len(decode_message(encode_message("é" * 5000))) == 512


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INTERNAL),
        (401, Code.UNAUTHENTICATED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.UNIMPLEMENTED),
        (429, Code.UNAVAILABLE),
        (502, Code.UNAVAILABLE),
        (503, Code.UNAVAILABLE),
        (504, Code.UNAVAILABLE),
        (500, Code.UNKNOWN),
        (302, Code.UNKNOWN),
        (0, Code.UNKNOWN),
    ],
)
def test_http_statuses_have_codes(status: int, code: Code) -> None:
    assert from_http(status) is code


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, Code.INTERNAL),
        (1, Code.INTERNAL),
        (7, Code.UNAVAILABLE),
        (8, Code.CANCELLED),
        (11, Code.RESOURCE_EXHAUSTED),
        (12, Code.PERMISSION_DENIED),
        (999, Code.INTERNAL),
    ],
)
def test_resets_have_codes(number: int, code: Code) -> None:
    assert from_reset(number).code is code


@pytest.mark.parametrize("untrusted", ["", "17", "-1", "x", "1.0", "٣", "9" * 5000])
def test_what_is_no_code_is_unknown(untrusted: str) -> None:
    assert parse_code(untrusted) is Code.UNKNOWN


def test_an_error_says_its_code() -> None:
    assert str(RpcError(Code.NOT_FOUND, "nobody")) == "NOT_FOUND: nobody"
    assert parse_code("16") is Code.UNAUTHENTICATED
