"""Fields that both versions have, and what stays behind a body."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.field import can_stand_in_lines, passed_trailers


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=8))
def test_what_can_stand_in_a_line_is_read_back_as_it_is(name: bytes, value: bytes) -> None:
    if not can_stand_in_lines([(name, value)]) or name in (b"host", b"te"):
        return
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n%b: %b\r\n\r\n" % (name, value))
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert list(event.headers)[1:] == [(name, value.strip(b" \t"))]


@pytest.mark.parametrize("name", [b"", b"X", b"a b", b"a:", b"a\xff", b"a(", b"a\r\n"])
def test_names_are_tokens_in_small_letters(name: bytes) -> None:
    assert not can_stand_in_lines([(name, b"x")])


@pytest.mark.parametrize("value", [b"\0", b"\r", b"\n", b"\x0b", b"\x7f", b"\x1b[2J"])
def test_values_have_no_control_characters(value: bytes) -> None:
    assert not can_stand_in_lines([(b"x", value)])
    assert can_stand_in_lines([(b"x", b"a\tb \xff")])


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=5))
def test_all_can_where_each_can(fields: list[tuple[bytes, bytes]]) -> None:
    assert can_stand_in_lines(fields) is all(can_stand_in_lines([field]) for field in fields)


def test_trailers_frame_and_route_nothing() -> None:
    kept = ((b"grpc-status", b"0"), (b"x-sum", b"1"), (b"server-timing", b"x"))
    evil = [b"content-length", b"transfer-encoding", b"host", b"authorization", b"cookie", b"x-forwarded-for",
            b"x-forwarded-client-cert", b"x-istio-source", b"connection", b"a\xff"]  # fmt: skip
    assert passed_trailers((*kept, *((name, b"x") for name in evil))) == kept
    assert passed_trailers(()) == ()
