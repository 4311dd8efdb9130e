"""Heads: read by the grammar alone, written so that they read back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.http1.head import (
    MAX_HEAD_BYTES,
    check_beginning,
    parse_fields,
    parse_request_head,
    parse_response_head,
    push_request_head,
    push_response_head,
)

TOKENS = st.text("abcdefgh-_.!0123456789", min_size=1, max_size=12).map(str.encode)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=10)


@given(TOKENS, VALUES.filter(bool), FIELDS)
def test_a_request_reads_back(method, target, fields) -> None:
    octets = push_request_head(method, target, fields)
    assert parse_request_head(octets) == ((b":method", method), (b":path", target), *fields)


@given(st.integers(100, 599), FIELDS)
def test_a_response_reads_back(status, fields) -> None:
    found, old = parse_response_head(push_response_head(b"%d" % status, fields))
    assert found == ((b":status", b"%d" % status), *fields)
    assert not old


def test_names_are_lowered_and_blanks_around_values_are_left_out() -> None:
    assert parse_fields(b"X-A: \t b c\t \r\nY:\r\n\r\n") == [(b"x-a", b"b c"), (b"y", b"")]


@pytest.mark.parametrize(
    ("line", "old"),
    [(b"HTTP/1.1 200 OK", False), (b"HTTP/1.1 200", False), (b"HTTP/1.0 404 Not Found", True)],
)
def test_status_lines(line, old) -> None:
    assert parse_response_head(line + b"\r\n\r\n")[1] is old


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 20 OK", b"HTTP/1.1 099 X", b"HTTP/2 200 OK", b"HTTP/1.1  200 OK", b"ICY 200 OK"]
)
def test_what_is_no_status_line_is_refused(line) -> None:
    with pytest.raises(PeerError):
        parse_response_head(line + b"\r\n\r\n")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_is_a_head(garbage) -> None:
    for parse in (parse_request_head, parse_response_head):
        with suppress(PeerError):
            assert parse(garbage + b"\r\n\r\n")


def test_what_no_head_begins_with_is_refused_at_once() -> None:
    for octets in (
        b"\x16\x03",
        b" GET",
        b"GET / HTTP/1.1\n",
        b"GET\rX",
        b"\nGET",
        b"a" * (MAX_HEAD_BYTES + 1),
    ):
        with pytest.raises(PeerError):
            check_beginning(octets)
    check_beginning(b"GET / HTTP/1.1\r")
    check_beginning(b"")
