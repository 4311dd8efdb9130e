"""Responses: what HTTP/1.1 could read otherwise is none, and what goes back of the others."""

from __future__ import annotations

import pytest

from ztunnel.errors import PeerError
from ztunnel.l7.response import check_interim, interim_passed_back, length_of, passed_back, said_length

OK = (b":status", b"200")


@pytest.mark.parametrize(
    ("fields", "method", "end", "length"),
    [
        ((OK,), b"GET", False, -1),
        ((OK,), b"GET", True, -1),
        ((OK, (b"content-length", b"5")), b"GET", False, 5),
        ((OK, (b"content-length", b"0")), b"GET", True, 0),
        ((OK, (b"content-length", b"5")), b"HEAD", True, 0),
        (((b":status", b"304"), (b"content-length", b"5")), b"GET", True, 0),
        (((b":status", b"204"),), b"GET", True, 0),
        (((b":status", b"599"), (b"x", b"a\tb\xff")), b"GET", False, -1),
    ],
)
def test_a_response_says_how_long_it_is(fields, method, end, length) -> None:
    assert length_of(fields[0][1], said_length(fields), method, end) == length


@pytest.mark.parametrize(
    "fields",
    [
        ((b":status", b"103"),),
        ((b":status", b"099"),),
        ((b":status", b"2000"),),
        (OK, (b"content-length", b"5")),
        (OK, (b"content-length", b"0"), (b"content-length", b"0")),
        (OK, (b"content-length", b"+0")),
        (OK, (b"x", b"a\rb")),
        (OK, (b"x\xff", b"a")),
    ],
)
def test_what_is_none_is_refused(fields) -> None:
    with pytest.raises(PeerError):
        length_of(fields[0][1], said_length(fields), b"GET", True)


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        (((b":status", b"100"),), True),
        (((b":status", b"103"), (b"link", b"x")), True),
        (((b":status", b"101"),), False),
        (((b":status", b"1a3"),), False),
        (((b":status", b"103"), (b"link", b"a\nb")), False),
    ],
)
def test_an_interim_response_switches_to_nothing(fields, good: bool) -> None:
    if good:
        check_interim(fields)
        return
    with pytest.raises(PeerError):
        check_interim(fields)


def test_a_response_goes_back_without_what_was_for_the_connection() -> None:
    fields = (
        (b":status", b"200"), (b"connection", b"close, x-mine, :status"), (b"x-mine", b"1"),
        (b"transfer-encoding", b"chunked"), (b"server", b"mine"),
    )  # fmt: skip
    assert passed_back(fields, 7) == (
        (b":status", b"200"),
        (b"server", b"mine"),
        (b"x-envoy-upstream-service-time", b"7"),
    )


def test_a_response_that_has_no_body_says_no_length() -> None:
    fields = ((b":status", b"204"), (b"content-length", b"5"), (b"x", b"1"))
    assert passed_back(fields, 7)[:2] == ((b":status", b"204"), (b"x", b"1"))
    fields = ((b":status", b"101"), (b"content-length", b"0"), (b"x", b"1"))
    assert passed_back(fields, 7)[:2] == ((b":status", b"101"), (b"x", b"1"))
    fields = (
        (b":status", b"103"),
        (b"connection", b"x"),
        (b"content-length", b"5"),
        (b"x", b"1"),
        (b"y", b"2"),
    )
    assert interim_passed_back(fields) == ((b":status", b"103"), (b"y", b"2"))
