"""What an answer does to a request and its response; what no header may be, and what frames a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.extauthz.outcome import (
    Denial,
    Failed,
    HeaderChange,
    How,
    Permit,
    checked,
    edited,
    permitted,
)
from ztunnel.l7.request import Request

FIELDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"authorization", b"secret")]


def request(path=b"/x", fields=FIELDS):
    return Request(b"GET", b"web", path, list(fields))


@pytest.mark.parametrize(
    ("permit", "fields"),
    [
        (Permit(), FIELDS),
        (Permit((HeaderChange(b"a", b"9"),)), [FIELDS[1], FIELDS[3], (b"a", b"9")]),
        (Permit((HeaderChange(b"n", b"9"),)), [*FIELDS, (b"n", b"9")]),
        (
            Permit((HeaderChange(b"a", b"8"), HeaderChange(b"a", b"9"))),
            [FIELDS[1], FIELDS[3], (b"a", b"8"), (b"a", b"9")],
        ),
        (Permit((HeaderChange(b"a", b"9", How.APPEND),)), [*FIELDS, (b"a", b"9")]),
        (Permit((HeaderChange(b"a", b"9", How.ADD_IF_ABSENT),)), FIELDS),
        (Permit((HeaderChange(b"n", b"9", How.ADD_IF_ABSENT),)), [*FIELDS, (b"n", b"9")]),
        (Permit((HeaderChange(b"n", b"9", How.SET_IF_PRESENT),)), FIELDS),
        (Permit((HeaderChange(b"b", b"9", How.SET_IF_PRESENT),)), [*FIELDS[:1], *FIELDS[2:], (b"b", b"9")]),
        (Permit(removed=(b"authorization", b"none")), FIELDS[:3]),
        (
            Permit((HeaderChange(b"authorization", b"new"),), (b"authorization",)),
            [*FIELDS[:3], (b"authorization", b"new")],
        ),
    ],
)
def test_headers_of_the_request_are_changed(permit, fields):
    before = request()
    made = permitted(before, permit)
    assert made.fields == fields
    assert before.fields == FIELDS


@pytest.mark.parametrize(
    "name", [b"host", b":authority", b":path", b"content-length", b"transfer-encoding", b"connection", b"te"]
)
def test_what_frames_a_request_or_says_whose_it_is_stays(name):
    before = request(fields=[(b"content-length", b"3"), (b"te", b"trailers")])
    change = Permit((HeaderChange(name, b"9"), HeaderChange(name, b"9", How.APPEND)), (name,))
    assert checked(change) == change
    made = permitted(before, change)
    assert (made.fields, made.authority, made.path) == (before.fields, b"web", b"/x")


@pytest.mark.parametrize(
    ("path", "permit", "expected"),
    [
        (b"/x?a=1&b=2&a=3", Permit(query=(("a", "n w"),)), b"/x?b=2&a=n%20w"),
        (b"/x", Permit(query=(("a", "&b=1#"),)), b"/x?a=%26b%3D1%23"),
        (b"/x?a=1&b=%41", Permit(query_removed=("a",)), b"/x?b=%41"),
        (b"/x?a=1", Permit(query_removed=("a",)), b"/x"),
        (b"/x?a", Permit(query_removed=("a",)), b"/x"),
    ],
)
def test_parameters_of_the_query_are_set_and_taken_out(path, permit, expected):
    assert permitted(request(path), permit).path == expected


def test_a_response_is_edited_but_for_what_frames_it():
    response = ((b":status", b"200"), (b"a", b"1"), (b"content-length", b"2"), (b"server", b"istio-envoy"))
    changes = [
        HeaderChange(b"set-cookie", b"x", How.APPEND),
        HeaderChange(b"a", b"2"),
        HeaderChange(b"content-length", b"9"),
        HeaderChange(b"server", b"me"),
        HeaderChange(b":status", b"500"),
    ]
    assert edited(response, changes) == (
        response[0],
        *response[2:],
        (b"set-cookie", b"x"),
        (b"a", b"2"),
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Permit((HeaderChange(b"a", b"x\r\nb: y"),)), "a header that is none: b'a'"),
        (Permit((HeaderChange(b"A", b"x"),)), "a header that is none: b'A'"),
        (Permit(response=(HeaderChange(b"a b", b"x"),)), "a header that is none: b'a b'"),
        (Permit((HeaderChange(b"", b"x"),)), "a header that is none: b''"),
        (Denial(403, ((b"a", b"x\n"),)), "a header of its denial that is none"),
        (Denial(101), "a denial with the status 101"),
        (Denial(999), "a denial with the status 999"),
    ],
)
def test_what_cannot_be_sent_is_an_error(answer, reason):
    assert checked(answer) == Failed(reason)


def test_a_denial_is_told_without_what_framed_it():
    fields = ((b"content-length", b"9"), (b"transfer-encoding", b"chunked"), (b"server", b"me"), (b"a", b"b"))
    assert checked(Denial(401, fields, b"no")) == Denial(401, ((b"a", b"b"),), b"no")


@pytest.mark.parametrize("status", [0, 503])
def test_what_is_wanted_instead_of_an_answer_is_checked_as_a_denial(status):
    good = Failed("it failed", Denial(status, ((b"a", b"b"), (b"server", b"x")), b"later"))
    assert checked(good) == Failed("it failed", Denial(status, ((b"a", b"b"),), b"later"))
    assert checked(Failed("it failed", Denial(status, ((b"a", b"\n"),)))) == Failed("it failed")


names = st.sampled_from([b"a", b"b", b"x-new", b"host", b":path"])
changes = st.builds(HeaderChange, names, st.binary(max_size=3), st.sampled_from(How))


@given(st.lists(changes, max_size=6).map(tuple), st.lists(names, max_size=3).map(tuple))
def test_whatever_is_checked_and_applied_can_stand_in_lines(asked, removed):
    answer = checked(Permit(asked, removed))
    if isinstance(answer, Permit):
        made = permitted(request(), answer)
        assert all(name not in (b"host", b":path") for name, _ in made.fields)
        assert not any(octet in value for _, value in made.fields for octet in b"\r\n\0")
